/* ---- Features: positions in the principal frame ----------------------------------------------------------- */

typedef struct {
    double values[DIMS], axes[DIMS * DIMS]; /* of the gyration tensor, largest extent first; axes as rows */
} Frame;

static void featurize(const double *positions, Frame *frame, double *y)
{
    double r[COORDINATES], tensor[DIMS * DIMS] = {0}, moment[DIMS] = {0};
    centre(positions, r);
    for (int i = 0; i < BEADS; i++)
        for (int k = 0; k < DIMS; k++) {
            moment[k] += (i - 0.5 * (BEADS - 1)) * r[i * DIMS + k];
            for (int j = 0; j < DIMS; j++)
                tensor[k * DIMS + j] += mass_fraction[i] * r[i * DIMS + k] * r[i * DIMS + j];
        }
    eigh(tensor, frame->values, frame->axes);
    /* The chain moment says which way an axis points. */
    for (int k = 0; SIGNS_BY_CHAIN && k < DIMS; k++) {
        double along = 0;
        for (int j = 0; j < DIMS; j++)
            along += frame->axes[k * DIMS + j] * moment[j];
        for (int j = 0; along < 0 && j < DIMS; j++)
            frame->axes[k * DIMS + j] = -frame->axes[k * DIMS + j];
    }
    if (!MIRROR)
        make_right_handed(frame->axes);
    turn(frame->axes, r, y);
}

static void prepare_gradient(Frame *frame, const double *y)
{
    (void)frame;
    (void)y;
}

/* From the gradient f by the features to that by positions. The axes turn with the beads: first-order perturbation
   theory gives axis k a part along axis j of (a_k dS a_j) / (l_k - l_j), and hence bead i the extra gradient
   m_i Q y_i, Q_kj = (T_kj - T_jk) / (l_k - l_j), T = sum_i f_i y_i^T. Between equal extents it is left out. */
static void pull_back(const Frame *frame, const double *y, const double *f, double *gradient)
{
    double t[DIMS * DIMS] = {0}, q[DIMS * DIMS] = {0}, total = 0;
    for (int i = 0; i < BEADS; i++)
        for (int k = 0; k < DIMS; k++)
            for (int j = 0; j < DIMS; j++)
                t[k * DIMS + j] += f[i * DIMS + k] * y[i * DIMS + j];
    for (int k = 0; k < DIMS; k++)
        total += fabs(frame->values[k]);
    for (int k = 0; k < DIMS; k++)
        for (int j = 0; j < k; j++) {
            const double gap = frame->values[k] - frame->values[j];
            if (fabs(gap) > 8 * DBL_EPSILON * total)
                q[k * DIMS + j] = q[j * DIMS + k] = (t[k * DIMS + j] - t[j * DIMS + k]) / gap;
        }
    for (int i = 0; i < BEADS; i++)
        for (int k = 0; k < DIMS; k++) {
            double extra = 0;
            for (int j = 0; j < DIMS; j++)
                extra += q[k * DIMS + j] * y[i * DIMS + j];
            gradient[i * DIMS + k] = f[i * DIMS + k] + mass_fraction[i] * extra;
        }
    turn_back(frame->axes, gradient);
}
