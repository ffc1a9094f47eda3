/* ---- The encoder ------------------------------------------------------------------------------------------ */

typedef struct {
    int inputs, width;           /* width: units, filled up to whole blocks */
    const double *weight, *bias; /* of weight, `width` numbers for each input */
} Layer;

static const Layer layers[HIDDEN_LAYERS] = LAYERS;

typedef struct {
    double input[FEATURES], units[HIDDEN_LAYERS * WIDEST];
} Network;

static const double inverse_factorial[12] = {
    1,           1,           1 / 2.0,      1 / 6.0,       1 / 24.0,       1 / 120.0,
    1 / 720.0,   1 / 5040.0,  1 / 40320.0,  1 / 362880.0,  1 / 3628800.0,  1 / 39916800.0};

/* tanh to about 2e-16 of 1 in additions and multiplications, which vectorise as the function of libm does not:
   (1 - t) / (1 + t) with t = exp(-2 |x|) = 2^n exp(r), |r| < 0.35. */
static double tanh_of(double x)
{
    const double shift = 6755399441055744.0; /* 1.5 * 2^52: a whole number added to it stands in its lowest bits */
    const double far = fabs(x) > 20 ? 20 : fabs(x), n = rint(-2 * far * 1.4426950408889634), whole = n + shift;
    const double r = (-2 * far - n * 0.6931471803691238) - n * 1.9082149292705877e-10;
    double t = 1 / 479001600.0, power;
    uint64_t bits;
    for (int k = 11; k >= 0; k--)
        t = t * r + inverse_factorial[k];
    memcpy(&bits, &whole, sizeof bits);
    bits = (bits + 1023) << 52; /* of `whole` only the lowest bits are left, which are n */
    memcpy(&power, &bits, sizeof power);
    t *= power;
    return copysign((1 - t) / (1 + t), x);
}

static void encode(const double *features, Network *network, double *z)
{
    const double *input = network->input;
    for (int i = 0; i < FEATURES; i++)
        network->input[i] = features[i] - feature_mean[i];
    for (int l = 0; l < HIDDEN_LAYERS; l++) {
        const Layer *layer = layers + l;
        double *units = network->units + l * WIDEST;
        for (int first = 0; first < layer->width; first += BLOCK) {
            const double *row = layer->weight + first;
            double sum[BLOCK];
            for (int k = 0; k < BLOCK; k++)
                sum[k] = layer->bias[first + k];
            for (int i = 0; i < layer->inputs; i++, row += layer->width)
                for (int k = 0; k < BLOCK; k++)
                    sum[k] += input[i] * row[k];
            for (int k = 0; k < BLOCK; k++)
                units[first + k] = sum[k];
        }
        for (int k = 0; k < layer->width; k++)
            units[k] = tanh_of(units[k]);
        input = units;
    }
    for (int a = 0; a < LATENTS; a++) {
        z[a] = head_bias[a];
        for (int k = 0; k < LAST_WIDTH; k++)
            z[a] += head_weight[a * LAST_WIDTH + k] * input[k];
    }
}

/* The gradient by one input of a layer, for each latent, from that by the sums of its units. */
static void by_input(const Layer *layer, int input, const double *by_sums, double *gradient)
{
    const double *row = layer->weight + (size_t)input * layer->width;
    for (int a = 0; a < LATENTS; a++, by_sums += WIDEST) {
        double sum[LANES] = {0};
        for (int first = 0; first < layer->width; first += LANES)
            for (int k = 0; k < LANES; k++)
                sum[k] += row[first + k] * by_sums[first + k];
        for (int half = LANES / 2; half > 0; half /= 2)
            for (int k = 0; k < half; k++)
                sum[k] += sum[k + half];
        gradient[a] = sum[0];
    }
}

/* The gradient of each latent by the features, from the last layer to the first. */
static void encode_back(const Network *network, double *by_features)
{
    double by_sums[LATENTS * WIDEST], below[LATENTS * WIDEST], gradient[LATENTS];
    const double *units = network->units + (HIDDEN_LAYERS - 1) * WIDEST;
    for (int a = 0; a < LATENTS; a++)
        for (int k = 0; k < LAST_WIDTH; k++)
            by_sums[a * WIDEST + k] = head_weight[a * LAST_WIDTH + k] * (1 - units[k] * units[k]);
    for (int l = HIDDEN_LAYERS - 1; l > 0; l--) {
        units = network->units + (l - 1) * WIDEST;
        for (int a = 0; a < LATENTS; a++)
            for (int k = 0; k < WIDEST; k++)
                below[a * WIDEST + k] = 0;
        for (int i = 0; i < layers[l].inputs; i++) {
            by_input(layers + l, i, by_sums, gradient);
            for (int a = 0; a < LATENTS; a++)
                below[a * WIDEST + i] = gradient[a] * (1 - units[i] * units[i]);
        }
        for (int k = 0; k < LATENTS * WIDEST; k++)
            by_sums[k] = below[k];
    }
    for (int i = 0; i < FEATURES; i++) {
        by_input(layers, i, by_sums, gradient);
        for (int a = 0; a < LATENTS; a++)
            by_features[a * FEATURES + i] = gradient[a];
    }
}
