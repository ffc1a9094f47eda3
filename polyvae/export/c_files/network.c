/* ---- The encoder ------------------------------------------------------------------------------------------ */

typedef struct {
    int inputs, width;           /* width: units, filled up to whole blocks */
    const double *weight, *bias; /* of weight, `width` numbers for each input */
} Layer;

static const Layer layers[HIDDEN_LAYERS] = LAYERS;

typedef struct {
    double input[FEATURES], units[HIDDEN_LAYERS * WIDEST];
} Network;

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
            units[k] = tanh(units[k]);
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
        double sum[BLOCK] = {0};
        for (int first = 0; first < layer->width; first += BLOCK)
            for (int k = 0; k < BLOCK; k++)
                sum[k] += row[first + k] * by_sums[first + k];
        for (int half = BLOCK / 2; half > 0; half /= 2)
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
