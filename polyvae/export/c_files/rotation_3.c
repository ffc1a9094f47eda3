/* ---- The rotation in space that fits best ----------------------------------------------------------------- */

static double dot(const double *x, const double *y)
{
    return x[0] * y[0] + x[1] * y[1] + x[2] * y[2];
}

static double determinant(const double *h)
{
    double normal[3];
    cross(h + 3, h + 6, normal);
    return dot(h, normal);
}

/* x without its part along a unit vector. */
static void reject(const double *x, const double *unit, double *rest)
{
    const double along = dot(x, unit);
    for (int k = 0; k < 3; k++)
        rest[k] = x[k] - along * unit[k];
}

static void normalise(double *x)
{
    const double length = sqrt(dot(x, x));
    for (int k = 0; k < 3; k++)
        x[k] /= length;
}

/* The proper rotation that maximises trace(R^T H): a singular value decomposition of H by one-sided Jacobi
   rotations, whose third pair of axes follows from the first two, so that the result is a rotation also where the
   determinant of H is negative or 0. Where several rotations are as good, one of them. */
static void nearest_rotation(const double *matrix, double *rotation)
{
    static const int turns[3][2] = {{0, 1}, {0, 2}, {1, 2}};
    double size = 0, h[9], v[9], squares[3], u1[3], u2[3], u3[3], v2[3], v3[3], near[2][3];
    for (int i = 0; i < 9; i++)
        size = fmax(size, fabs(matrix[i]));
    if (!(size > 0))
        size = 1;
    for (int i = 0; i < 9; i++) {
        h[i] = matrix[3 * (i % 3) + i / 3] / size; /* the columns of H as rows */
        v[i] = i % 4 == 0;
    }
    for (int s = 0; s < 3 * SWEEPS; s++) {
        double *hp = h + 3 * turns[s % 3][0], *hq = h + 3 * turns[s % 3][1], cosine, sine, shift;
        jacobi(dot(hp, hp), dot(hq, hq), dot(hp, hq), &cosine, &sine, &shift);
        rotate_rows(cosine, sine, hp, hq);
        rotate_rows(cosine, sine, v + 3 * turns[s % 3][0], v + 3 * turns[s % 3][1]);
    }
    for (int k = 0; k < 3; k++)
        squares[k] = dot(h + 3 * k, h + 3 * k);
    sort_descending(squares, h, v);

    for (int k = 0; k < 3; k++)
        u1[k] = squares[0] > 0 ? h[k] : v[k];
    normalise(u1);
    /* A rank of one leaves the turn about u1 open: take the axis nearest to where it was. */
    const int known = squares[1] > 64 * DBL_EPSILON * DBL_EPSILON * squares[0];
    reject(v + 3, u1, near[0]);
    reject(v + 6, u1, near[1]);
    const int first = dot(near[0], near[0]) > 0.25;
    for (int k = 0; k < 3; k++) {
        u3[k] = known ? h[3 + k] : near[first ? 0 : 1][k];
        v2[k] = v[known || first ? 3 + k : 6 + k];
    }
    normalise(u3);
    reject(u3, u1, u2);
    normalise(u2);
    cross(u1, u2, u3);
    cross(v, v2, v3);
    for (int i = 0; i < 9; i++)
        rotation[i] = u1[i / 3] * v[i % 3] + u2[i / 3] * v2[i % 3] + u3[i / 3] * v3[i % 3];
}

/* How far a torque turns the frame: the inverse of tr(M) 1 - M, M the symmetric part of the fitted H R^T, without
   the axes about which a turn is not defined. */
static void find_compliance(const double *fitted, double *compliance)
{
    const double trace = fitted[0] + fitted[4] + fitted[8];
    double stiffness[9], values[3], axes[9], total;
    for (int i = 0; i < 9; i++) {
        stiffness[i] = (i % 4 == 0 ? trace : 0) - 0.5 * (fitted[i] + fitted[3 * (i % 3) + i / 3]);
        compliance[i] = 0;
    }
    eigh(stiffness, values, axes);
    total = fabs(values[0]) + fabs(values[1]) + fabs(values[2]);
    for (int k = 0; k < 3; k++)
        for (int i = 0; values[k] > 8 * DBL_EPSILON * total && i < 9; i++)
            compliance[i] += axes[3 * k + i / 3] * axes[3 * k + i % 3] / values[k];
}

/* The turn, as an antisymmetric matrix, that answers a torque, another one. */
static void answer(const double *compliance, const double *torque, double *turned)
{
    const double axis[3] = {torque[5], torque[6], torque[1]};
    for (int i = 0; i < 9; i++)
        turned[i] = 0;
    turned[5] = dot(compliance, axis);
    turned[6] = dot(compliance + 3, axis);
    turned[1] = dot(compliance + 6, axis);
    turned[7] = -turned[5];
    turned[2] = -turned[6];
    turned[3] = -turned[1];
}
