/* Latent coordinates of a polyvae model, and their gradients by positions.

   The model: @MODEL@.

   C99 or C++, no library but libm. Nothing is allocated and nothing kept between calls: any number of threads may
   call these functions at once. A program with several models includes each latent_cv.c in a source file of its own,
   below "#define LATENT_CV_API static". */

#ifndef LATENT_CV_H
#define LATENT_CV_H

@CONSTANTS@

/* The atoms that are the beads, in the order of the beads, counted from 1 in the order of the engine's input. */
@ATOMS@

#ifndef LATENT_CV_API
#define LATENT_CV_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Latents of one conformation.

   positions      [BEADS][DIMS], in LATENT_CV_UNIT, whole: not cut by a periodic boundary
   z              [LATENTS], written
   dz_dpositions  [LATENTS][BEADS][DIMS], per LATENT_CV_UNIT, written; NULL where it is not wanted

   Returns 0, or 1 where a latent or an entry of its gradient is not finite: a position is not, or is so large or so
   small that its square is out of range. */
LATENT_CV_API int latent_cv(const double *positions, double *z, double *dz_dpositions);

/* Makes a molecule whole that a periodic boundary cuts: adds whole boxes to all beads but one, so that each comes
   to lie next to the bead that it is bonded to, or, of pieces with no bond between them, to the piece before.

   positions  [BEADS][DIMS]
   box        [DIMS][DIMS], box vectors as rows, lower triangular, as GROMACS, LAMMPS and OpenMM hold them
   whole      [BEADS][DIMS], written; may be `positions` itself

   Returns 0, or 1 where two such beads are then still about half a box apart or more, so that another image could
   be meant. */
LATENT_CV_API int latent_cv_whole(const double *positions, const double *box, double *whole);

#ifdef __cplusplus
}
#endif

#endif
