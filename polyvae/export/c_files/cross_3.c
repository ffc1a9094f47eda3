static void cross(const double *x, const double *y, double *product)
{
    product[0] = x[1] * y[2] - x[2] * y[1];
    product[1] = x[2] * y[0] - x[0] * y[2];
    product[2] = x[0] * y[1] - x[1] * y[0];
}
