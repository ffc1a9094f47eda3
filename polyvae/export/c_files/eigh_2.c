/* ---- Eigenvectors of a symmetric 2 x 2 matrix ------------------------------------------------------------- */

/* Eigenvalues, largest first, and eigenvectors as rows. */
static void eigh(const double *matrix, double *values, double *axes)
{
    const double middle = 0.5 * (matrix[0] + matrix[3]), half = 0.5 * (matrix[0] - matrix[3]);
    const double angle = 0.5 * atan2(2 * matrix[1], matrix[0] - matrix[3]), radius = hypot(half, matrix[1]);
    values[0] = middle + radius;
    values[1] = middle - radius;
    axes[0] = cos(angle);
    axes[1] = sin(angle);
    axes[2] = -axes[1];
    axes[3] = axes[0];
}
