/* ---- Eigenvectors of a symmetric 3 x 3 matrix ------------------------------------------------------------- */

/* Eigenvalues, largest first, and eigenvectors as rows, by Jacobi rotations. */
static void eigh(const double *matrix, double *values, double *axes)
{
    static const int turns[3][3] = {{0, 1, 2}, {0, 2, 1}, {1, 2, 0}};
    const double trace = matrix[0] + matrix[4] + matrix[8], scale = trace > 0 ? trace : 1;
    double a[3][3];
    for (int i = 0; i < 9; i++) {
        a[i / 3][i % 3] = matrix[i] / scale;
        axes[i] = i % 4 == 0;
    }
    for (int s = 0; s < 3 * SWEEPS; s++) {
        const int p = turns[s % 3][0], q = turns[s % 3][1], r = turns[s % 3][2];
        const double apr = a[p][r], aqr = a[q][r];
        double cosine, sine, shift;
        jacobi(a[p][p], a[q][q], a[p][q], &cosine, &sine, &shift);
        a[p][p] -= shift;
        a[q][q] += shift;
        a[p][q] = a[q][p] = 0;
        a[p][r] = a[r][p] = cosine * apr - sine * aqr;
        a[q][r] = a[r][q] = sine * apr + cosine * aqr;
        rotate_rows(cosine, sine, axes + 3 * p, axes + 3 * q);
    }
    for (int k = 0; k < 3; k++)
        values[k] = a[k][k];
    sort_descending(values, axes, axes);
    for (int k = 0; k < 3; k++)
        values[k] *= scale;
}
