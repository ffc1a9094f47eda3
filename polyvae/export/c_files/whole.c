/* ---- Periodic boundaries ---------------------------------------------------------------------------------- */

int latent_cv_whole(const double *positions, const double *box, double *whole)
{
    int too_long = 0;
    for (int i = 0; i < COORDINATES; i++)
        whole[i] = positions[i];
    /* Every bead beside the one that it hangs on, which has its place already. The last box vector is taken off
       first: of a lower triangular box none of the others has a part along it. */
    for (int b = 0; b < LINKS; b++) {
        const double *from = whole + links[2 * b] * DIMS;
        double *to = whole + links[2 * b + 1] * DIMS;
        for (int k = DIMS - 1; k >= 0; k--) {
            const double boxes = rint((to[k] - from[k]) / box[k * DIMS + k]);
            for (int j = 0; j <= k; j++)
                to[j] -= boxes * box[k * DIMS + j];
        }
    }
    /* A bond of about half the box could have been meant otherwise, and a bond to the own image never fits. */
    for (int b = 0; b < BONDS; b++)
        for (int k = 0; k < DIMS; k++) {
            const double reach = whole[bonds[2 * b + 1] * DIMS + k] - whole[bonds[2 * b] * DIMS + k];
            too_long |= !(fabs(reach) <= LONGEST_BOND * box[k * DIMS + k]);
        }
    return too_long;
}
