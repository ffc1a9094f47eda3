/* ---- All together ----------------------------------------------------------------------------------------- */

/* The beads as they are numbered, or from the last one to the first; twice the same gives the first again. */
static void in_order(const double *from, int reversed, double *to)
{
    for (int i = 0; i < BEADS; i++)
        for (int k = 0; k < DIMS; k++)
            to[i * DIMS + k] = from[(reversed ? BEADS - 1 - i : i) * DIMS + k];
}

int latent_cv(const double *positions, double *z, double *dz_dpositions)
{
    double ordered[COORDINATES], features[FEATURES];
    const int reversed = is_reversed(positions);
    int finite = 1;
    Frame frame;
    Network network;
    in_order(positions, reversed, ordered);
    featurize(ordered, &frame, features);
    encode(features, &network, z);
    for (int a = 0; a < LATENTS; a++)
        finite &= fabs(z[a]) <= DBL_MAX;
    if (dz_dpositions != NULL) {
        double by_features[LATENTS * FEATURES], gradient[COORDINATES];
        encode_back(&network, by_features);
        prepare_gradient(&frame, features);
        for (int a = 0; a < LATENTS; a++) {
            pull_back(&frame, features, by_features + a * FEATURES, gradient);
            in_order(gradient, reversed, dz_dpositions + a * COORDINATES);
            for (int i = 0; i < COORDINATES; i++)
                finite &= fabs(gradient[i]) <= DBL_MAX;
        }
    }
    return finite ? 0 : 1;
}
