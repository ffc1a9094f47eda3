/* The last axis such that all are a rotation. */
static void make_right_handed(double *axes)
{
    axes[2] = -axes[1];
    axes[3] = axes[0];
}
