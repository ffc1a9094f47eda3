/* ---- Features: positions superposed on the reference ------------------------------------------------------ */

typedef struct {
    double rotation[DIMS * DIMS]; /* a reflection where the mirror image fits better and mirror images are the same */
    double compliance[DIMS * DIMS];
} Frame;

static void featurize(const double *positions, Frame *frame, double *y)
{
    double r[COORDINATES], h[DIMS * DIMS] = {0};
    centre(positions, r);
    for (int i = 0; i < BEADS; i++)
        for (int k = 0; k < DIMS; k++)
            for (int j = 0; j < DIMS; j++)
                h[k * DIMS + j] += mass_fraction[i] * reference[i * DIMS + k] * r[i * DIMS + j];
    if (MIRROR && determinant(h) < 0) {
        /* Turn the mirror image: of the plane y -> -y, in space r -> -r. */
        const int first = DIMS == 2;
        for (int k = 0; k < DIMS; k++)
            for (int j = first; j < DIMS; j++)
                h[k * DIMS + j] = -h[k * DIMS + j];
        nearest_rotation(h, frame->rotation);
        for (int k = 0; k < DIMS; k++)
            for (int j = first; j < DIMS; j++)
                frame->rotation[k * DIMS + j] = -frame->rotation[k * DIMS + j];
    } else {
        nearest_rotation(h, frame->rotation);
    }
    turn(frame->rotation, r, y);
}

static void prepare_gradient(Frame *frame, const double *y)
{
    double fitted[DIMS * DIMS] = {0};
    for (int i = 0; i < BEADS; i++)
        for (int k = 0; k < DIMS; k++)
            for (int j = 0; j < DIMS; j++)
                fitted[k * DIMS + j] += mass_fraction[i] * reference[i * DIMS + k] * y[i * DIMS + j];
    find_compliance(fitted, frame->compliance);
}

/* From the gradient f by the features to that by positions. The rotation goes with the beads: with the torque
   tau = sum_i y_i x f_i, and w = (tr(M) 1 - M)^-1 tau, M the symmetric part of sum_i m_i c_i y_i^T, bead i has the
   extra gradient m_i c_i x w, c the reference. */
static void pull_back(const Frame *frame, const double *y, const double *f, double *gradient)
{
    double t[DIMS * DIMS] = {0}, torque[DIMS * DIMS], turned[DIMS * DIMS];
    for (int i = 0; i < BEADS; i++)
        for (int k = 0; k < DIMS; k++)
            for (int j = 0; j < DIMS; j++)
                t[k * DIMS + j] += y[i * DIMS + k] * f[i * DIMS + j];
    for (int k = 0; k < DIMS; k++)
        for (int j = 0; j < DIMS; j++)
            torque[k * DIMS + j] = t[k * DIMS + j] - t[j * DIMS + k];
    answer(frame->compliance, torque, turned);
    for (int i = 0; i < BEADS; i++)
        for (int k = 0; k < DIMS; k++) {
            double extra = 0;
            for (int j = 0; j < DIMS; j++)
                extra += turned[k * DIMS + j] * reference[i * DIMS + j];
            gradient[i * DIMS + k] = f[i * DIMS + k] + mass_fraction[i] * extra;
        }
    turn_back(frame->rotation, gradient);
}
