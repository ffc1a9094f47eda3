/* ---- Jacobi rotations ------------------------------------------------------------------------------------- */

/* Cosine and sine of the Jacobi rotation that makes the off-diagonal element `apq` vanish, and tan * apq. */
static void jacobi(double app, double aqq, double apq, double *cosine, double *sine, double *shift)
{
    const double difference = aqq - app, root = sqrt(difference * difference + 4 * apq * apq);
    const double below = difference + (difference < 0 ? -root : root);
    const double tangent = below == 0 ? 0 : 2 * apq / below;
    *cosine = 1 / sqrt(1 + tangent * tangent);
    *sine = tangent * *cosine;
    *shift = tangent * apq;
}

static void rotate_rows(double cosine, double sine, double *x, double *y)
{
    for (int k = 0; k < 3; k++) {
        const double a = x[k], b = y[k];
        x[k] = cosine * a - sine * b;
        y[k] = sine * a + cosine * b;
    }
}

/* Three numbers sorted, largest first, and rows along with them. */
static void sort_descending(double *values, double *rows, double *more_rows)
{
    static const int pairs[3][2] = {{0, 1}, {0, 2}, {1, 2}};
    for (int s = 0; s < 3; s++) {
        const int i = pairs[s][0], j = pairs[s][1];
        if (values[j] > values[i]) {
            const double value = values[i];
            values[i] = values[j];
            values[j] = value;
            for (int k = 0; k < 3; k++) {
                const double a = rows[3 * i + k], b = more_rows[3 * i + k];
                rows[3 * i + k] = rows[3 * j + k];
                rows[3 * j + k] = a;
                if (more_rows != rows) {
                    more_rows[3 * i + k] = more_rows[3 * j + k];
                    more_rows[3 * j + k] = b;
                }
            }
        }
    }
}

#define SWEEPS 6 /* of Jacobi rotations; each doubles the digits, and the sixth is below rounding */
