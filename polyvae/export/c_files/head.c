#include "latent_cv.h"

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define BEADS LATENT_CV_BEADS
#define DIMS LATENT_CV_DIMS
#define LATENTS LATENT_CV_LATENTS
#define COORDINATES (BEADS * DIMS)
#define LANES 8  /* numbers that are added up side by side, which vectorises */
#define BLOCK 32 /* four of them at a time: the tables of the network are filled up with zeros to whole blocks */

/* A table that lacks a number, or has one too many, does not compile. */
#define TABLE(name, size) typedef char name##_is_complete[sizeof(name) == (size) * sizeof(name[0]) ? 1 : -1]

#include "latent_cv_weights.h"
#ifndef LATENT_CV_WEIGHTS_END
#error "latent_cv_weights.h is cut short: export the model again"
#endif
