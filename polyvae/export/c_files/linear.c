/* ---- The encoder: linear, without hidden units ------------------------------------------------------------ */

typedef struct {
    int unused;
} Network;

static void encode(const double *features, Network *network, double *z)
{
    network->unused = 0;
    for (int a = 0; a < LATENTS; a++) {
        z[a] = head_bias[a];
        for (int i = 0; i < FEATURES; i++)
            z[a] += head_weight[a * LAST_WIDTH + i] * (features[i] - feature_mean[i]);
    }
}

static void encode_back(const Network *network, double *by_features)
{
    (void)network;
    for (int a = 0; a < LATENTS; a++)
        for (int i = 0; i < FEATURES; i++)
            by_features[a * FEATURES + i] = head_weight[a * LAST_WIDTH + i];
}
