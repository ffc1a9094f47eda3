/* ---- For the process that compiled this, beside latent_cv: where a call takes longer than the kernel does --------- */

/* Sizes, and a loop over frames that returns the first whose latents are not finite, or -1. */
const int latent_cv_sizes[3] = {BEADS, DIMS, LATENTS};

long latent_cv_frames(long n, const double *positions, double *z, double *dz_dpositions);
long latent_cv_frames(long n, const double *positions, double *z, double *dz_dpositions)
{
    long bad = -1;
    for (long i = n - 1; i >= 0; i--) {
        double *gradient = dz_dpositions == NULL ? NULL : dz_dpositions + i * LATENTS * COORDINATES;
        if (latent_cv(positions + i * COORDINATES, z + i * LATENTS, gradient))
            bad = i;
    }
    return bad;
}

/* A bias on the latents: a table, and walls. */
typedef struct {
    double low, step, points; /* of the table along one latent */
    double wall_low, wall_high, stiffness;
} Axis;

/* The table at z, and its slope: along each latent a cubic through the points, with the slope at each that its two
   neighbours give (Catmull and Rom); outside it is what it is at the edge. */
static double looked_up(const double *values, const Axis *axes, const double *z, double *slope)
{
    double counts[LATENTS][4], rises[LATENTS][4], found = 0;
    size_t first[LATENTS];
    for (int a = 0; a < LATENTS; a++) {
        const double place = (z[a] - axes[a].low) / axes[a].step, last = axes[a].points - 2;
        const double at = !(place > 1) ? 1 : place > last ? last : place;
        const double cell = at < last ? floor(at) : last - 1;
        const double t = at - cell, u = 1 - t, by = at == place ? 1 / axes[a].step : 0;
        const double count[4] = {-0.5 * t * u * u, 1 + t * t * (1.5 * t - 2.5), 1 + u * u * (1.5 * u - 2.5), -0.5 * u * t * t};
        const double rise[4] = {u * (1.5 * t - 0.5), t * (4.5 * t - 5), -u * (4.5 * u - 5), -t * (1.5 * u - 0.5)};
        for (int k = 0; k < 4; k++) {
            counts[a][k] = count[k];
            rises[a][k] = by * rise[k];
        }
        first[a] = (size_t)cell - 1;
        slope[a] = 0;
    }
    for (int corner = 0; corner < 1 << 2 * LATENTS; corner++) {
        size_t row = 0;
        double each = 1;
        for (int a = 0; a < LATENTS; a++) {
            const int k = corner >> 2 * a & 3;
            row = row * (size_t)axes[a].points + first[a] + (size_t)k;
            each *= counts[a][k];
        }
        found += each * values[row];
        for (int a = 0; a < LATENTS; a++) {
            double along = values[row];
            for (int b = 0; b < LATENTS; b++)
                along *= (a == b ? rises : counts)[b][corner >> 2 * b & 3];
            slope[a] += along;
        }
    }
    return found;
}

/* The bias on positions times a factor: latents, energies of table and walls, and the push on the positions, which is
   their negative slope. Returns what latent_cv returns. */
int latent_cv_pushed(double factor, const double *positions, const double *values, const Axis *axes, double *z,
                     double *energies, double *push);
int latent_cv_pushed(double factor, const double *positions, const double *values, const Axis *axes, double *z,
                     double *energies, double *push)
{
    double scaled[COORDINATES], gradients[LATENTS * COORDINATES], slope[LATENTS];
    for (int i = 0; i < COORDINATES; i++)
        scaled[i] = factor * positions[i];
    const int status = latent_cv(scaled, z, gradients);
    energies[0] = looked_up(values, axes, z, slope);
    energies[1] = 0;
    for (int a = 0; a < LATENTS; a++) {
        const double out = z[a] > axes[a].wall_high ? z[a] - axes[a].wall_high
                           : z[a] < axes[a].wall_low ? z[a] - axes[a].wall_low : 0;
        energies[1] += 0.5 * axes[a].stiffness * out * out;
        slope[a] += axes[a].stiffness * out;
    }
    for (int i = 0; i < COORDINATES; i++) {
        push[i] = 0;
        for (int a = 0; a < LATENTS; a++)
            push[i] -= factor * slope[a] * gradients[a * COORDINATES + i];
    }
    return status;
}

/* ---- The same as LAMMPS calls it, from `fix external` ---------------------------------------------------------- */

typedef struct {
    void *lammps;
    const char *fix;
    void (*set_energy)(void *, const char *, double);
    void (*set_virial)(void *, const char *, double *);
    const double *box_low, *box_high, *tilt[3]; /* of LAMMPS itself: xy, xz, yz */
    const int32_t *periodic;                    /* NULL where it is in no direction */
    const int64_t *atoms;                       /* IDs of the beads */
    int64_t *rows;                              /* where they were last */
    int64_t id_size;                            /* bytes of an ID */
    double factor;
    const double *values;
    const Axis *axes;
    double *z, *energies, *whole; /* of the last step; positions in the model's unit */
    int64_t failed;               /* 0, or what failed first: 1 an atom is lost, 2 a bond is too long, 3 not finite */
} LatentFix;

static int64_t id_of(const LatentFix *fix, const void *ids, int64_t row)
{
    return fix->id_size == 4 ? ((const int32_t *)ids)[row] : ((const int64_t *)ids)[row];
}

static int find_beads(LatentFix *fix, const void *ids, int n)
{
    for (int bead = 0; bead < BEADS; bead++) {
        if (fix->rows[bead] < n && id_of(fix, ids, fix->rows[bead]) == fix->atoms[bead])
            continue;
        int64_t row = 0;
        while (row < n && id_of(fix, ids, row) != fix->atoms[bead])
            row++;
        if (row == n)
            return 1;
        fix->rows[bead] = row;
    }
    return 0;
}

void latent_fix_call(void *pointer, int64_t step, int n, const void *ids, double **x, double **forces);
void latent_fix_call(void *pointer, int64_t step, int n, const void *ids, double **x, double **forces)
{
    LatentFix *fix = (LatentFix *)pointer;
    double r[COORDINATES], push[COORDINATES], virial[6] = {0};
    (void)step;
    for (int i = 0; i < n; i++)
        forces[i][0] = forces[i][1] = forces[i][2] = 0;
    if (fix->failed || (fix->failed = find_beads(fix, ids, n)))
        return;
    for (int i = 0; i < BEADS; i++)
        for (int k = 0; k < DIMS; k++)
            r[i * DIMS + k] = x[fix->rows[i]][k];
    if (fix->periodic != NULL) {
        double box[DIMS * DIMS] = {0};
        for (int k = 0; k < DIMS; k++) /* nothing is ever a whole box away where it does not repeat */
            box[k * DIMS + k] = fix->periodic[k] ? fix->box_high[k] - fix->box_low[k] : 1e300;
        for (int k = 1; k < DIMS; k++)
            for (int j = 0; j < k; j++)
                box[k * DIMS + j] = *fix->tilt[k + j - 1];
        if (latent_cv_whole(r, box, r)) {
            fix->failed = 2;
            return;
        }
    }
    for (int i = 0; i < COORDINATES; i++)
        fix->whole[i] = fix->factor * r[i];
    if (latent_cv_pushed(fix->factor, r, fix->values, fix->axes, fix->z, fix->energies, push)) {
        fix->failed = 3;
        return;
    }
    for (int i = 0; i < BEADS; i++)
        for (int k = 0; k < DIMS; k++)
            forces[fix->rows[i]][k] = push[i * DIMS + k];
    /* Whole positions, about any origin: the forces have no sum. */
    for (int i = 0; i < BEADS; i++)
        for (int k = 0; k < DIMS; k++) {
            virial[k] += r[i * DIMS + k] * push[i * DIMS + k];
            for (int j = 0; j < k; j++)
                virial[2 + k + j] += r[i * DIMS + j] * push[i * DIMS + k];
        }
    fix->set_energy(fix->lammps, fix->fix, fix->energies[0] + fix->energies[1]);
    fix->set_virial(fix->lammps, fix->fix, virial);
}
