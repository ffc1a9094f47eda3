/* ---- Centre of mass --------------------------------------------------------------------------------------- */

/* Positions about the centre of mass. The first bead is taken off first, so that a molecule far from the origin
   loses no digits. */
static void centre(const double *positions, double *r)
{
    double com[DIMS] = {0};
    for (int i = 0; i < BEADS; i++)
        for (int k = 0; k < DIMS; k++) {
            r[i * DIMS + k] = positions[i * DIMS + k] - positions[k];
            com[k] += mass_fraction[i] * r[i * DIMS + k];
        }
    for (int i = 0; i < BEADS; i++)
        for (int k = 0; k < DIMS; k++)
            r[i * DIMS + k] -= com[k];
}

/* R r_i for every bead. */
static void turn(const double *rotation, const double *r, double *turned)
{
    for (int i = 0; i < BEADS; i++)
        for (int k = 0; k < DIMS; k++) {
            double sum = 0;
            for (int j = 0; j < DIMS; j++)
                sum += rotation[k * DIMS + j] * r[i * DIMS + j];
            turned[i * DIMS + k] = sum;
        }
}

/* From the gradient by turned positions to that by the molecule's own: turned back, and without what moves the
   centre of mass. */
static void turn_back(const double *rotation, double *gradient)
{
    double sum[DIMS] = {0};
    for (int i = 0; i < BEADS; i++) {
        double g[DIMS] = {0};
        for (int k = 0; k < DIMS; k++)
            for (int j = 0; j < DIMS; j++)
                g[j] += rotation[k * DIMS + j] * gradient[i * DIMS + k];
        for (int k = 0; k < DIMS; k++) {
            gradient[i * DIMS + k] = g[k];
            sum[k] += g[k];
        }
    }
    for (int i = 0; i < BEADS; i++)
        for (int k = 0; k < DIMS; k++)
            gradient[i * DIMS + k] -= mass_fraction[i] * sum[k];
}
