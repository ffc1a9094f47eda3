/* The last axis such that all are a rotation. */
static void make_right_handed(double *axes)
{
    cross(axes, axes + 3, axes + 6);
}
