/* ---- A chain and its reversal are the same --------------------------------------------------------------- */

/* Whether the chain is to be read from its last bead. The end with the larger second moment comes last:
   a = sum_i (i - (N-1)/2) |r_i - c|^2 >= 0, c the plain mean. Where a is 0 to rounding the signed area decides in
   2-D, and where nothing is left to tell the ends apart, the lie of the chain. Beads i and N-1-i are treated
   alike in every step, so that a chain and its reversal have the very same latents. */
static int is_reversed(const double *positions)
{
    static const double lie_of[3] = {1.0, 0.618000030517578125, 0.41400000452995300293};
    const int half = BEADS / 2;
    const double *last = positions + (BEADS - 1) * DIMS;
    double origin[DIMS], mean[DIMS] = {0}, asymmetry = 0, bound = 0, lie = 0;
    for (int k = 0; k < DIMS; k++)
        origin[k] = 0.5 * (positions[k] + last[k]);
    for (int i = 0; i < half; i++)
        for (int k = 0; k < DIMS; k++)
            mean[k] += (positions[i * DIMS + k] - origin[k]) + (last[k - i * DIMS] - origin[k]);
    for (int k = 0; k < DIMS; k++) {
        if (BEADS % 2)
            mean[k] += positions[half * DIMS + k] - origin[k];
        mean[k] /= BEADS;
    }
    for (int i = 0; i < half; i++) {
        double reach[2] = {0, 0};
        for (int k = 0; k < DIMS; k++) {
            const double first = positions[i * DIMS + k] - origin[k] - mean[k];
            const double second = last[k - i * DIMS] - origin[k] - mean[k];
            reach[0] += first * first;
            reach[1] += second * second;
            lie += (positions[i * DIMS + k] - last[k - i * DIMS]) * lie_of[k];
        }
        asymmetry += (i - 0.5 * (BEADS - 1)) * (reach[0] - reach[1]);
        bound += (0.5 * (BEADS - 1) - i) * (reach[0] + reach[1]);
    }
    if (DIMS == 2 && fabs(asymmetry) <= 64 * DBL_EPSILON * bound) {
        asymmetry = 0;
        for (int i = 0; i + 1 < BEADS; i++) {
            const double *a = positions + i * DIMS, *b = a + DIMS;
            asymmetry += (a[0] - positions[0]) * (b[1] - positions[1]) - (a[1] - positions[1]) * (b[0] - positions[0]);
        }
    }
    return asymmetry < 0 || (asymmetry == 0 && lie < 0);
}
