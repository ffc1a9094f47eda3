/* ---- Features: distances between beads -------------------------------------------------------------------- */

typedef struct {
    double positions[COORDINATES];
} Frame;

static void featurize(const double *positions, Frame *frame, double *y)
{
    for (int i = 0; i < COORDINATES; i++)
        frame->positions[i] = positions[i];
    for (int p = 0; p < FEATURES; p++) {
        double squared = 0;
        for (int k = 0; k < DIMS; k++) {
            const double apart = positions[pairs[2 * p] * DIMS + k] - positions[pairs[2 * p + 1] * DIMS + k];
            squared += apart * apart;
        }
        y[p] = sqrt(squared);
    }
}

static void prepare_gradient(Frame *frame, const double *y)
{
    (void)frame;
    (void)y;
}

/* From the gradient f by the distances to that by positions; 0 for beads in one place. */
static void pull_back(const Frame *frame, const double *y, const double *f, double *gradient)
{
    for (int i = 0; i < COORDINATES; i++)
        gradient[i] = 0;
    for (int p = 0; p < FEATURES; p++) {
        const double slope = y[p] > 0 ? f[p] / y[p] : 0;
        for (int k = 0; k < DIMS; k++) {
            const int i = pairs[2 * p] * DIMS + k, j = pairs[2 * p + 1] * DIMS + k;
            const double pull = slope * (frame->positions[i] - frame->positions[j]);
            gradient[i] += pull;
            gradient[j] -= pull;
        }
    }
}
