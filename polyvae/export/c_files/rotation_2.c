/* ---- The rotation in the plane that fits best ------------------------------------------------------------- */

static double determinant(const double *h)
{
    return h[0] * h[3] - h[1] * h[2];
}

/* The rotation that maximises trace(R^T H), in closed form; none where every rotation is as good. */
static void nearest_rotation(const double *h, double *rotation)
{
    double size = 0, x = h[0] + h[3], y = h[2] - h[1];
    for (int i = 0; i < 4; i++)
        size = fmax(size, fabs(h[i]));
    if (size > 0) {
        x /= size;
        y /= size;
    }
    if (x * x + y * y > 64 * DBL_EPSILON * DBL_EPSILON) {
        const double length = sqrt(x * x + y * y);
        x /= length;
        y /= length;
    } else {
        x = 1;
        y = 0;
    }
    rotation[0] = rotation[3] = x;
    rotation[1] = -y;
    rotation[2] = y;
}

/* How far a torque turns the frame, whose fitted H R^T is given; 0 along a turn that is not defined. */
static void find_compliance(const double *fitted, double *compliance)
{
    double size = 0;
    const double stiffness = fitted[0] + fitted[3];
    for (int i = 0; i < 4; i++)
        size = fmax(size, fabs(fitted[i]));
    compliance[0] = stiffness > 8 * DBL_EPSILON * size ? 1 / stiffness : 0;
}

/* The turn, as an antisymmetric matrix, that answers a torque, another one. */
static void answer(const double *compliance, const double *torque, double *turned)
{
    turned[0] = turned[3] = 0;
    turned[1] = compliance[0] * torque[1];
    turned[2] = -turned[1];
}
