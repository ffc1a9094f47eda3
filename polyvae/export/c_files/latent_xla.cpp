/* latent_cv.c as a call of XLA, for JAX programs: positions [..., BEADS, DIMS] to z and dz_dpositions.

   Source: the documentation of JAX, https://docs.jax.dev (foreign function interface). */

#include "xla/ffi/api/ffi.h"

#define LATENT_CV_API [[maybe_unused]] static
#include "latent_cv.c"

namespace {

using Array = xla::ffi::Buffer<xla::ffi::F64>;
using Result = xla::ffi::ResultBuffer<xla::ffi::F64>;

xla::ffi::Error evaluate(Array positions, Result z, Result gradients)
{
    const double *x = positions.typed_data();
    const size_t n = positions.element_count() / COORDINATES;
    if (positions.element_count() != n * COORDINATES || z->element_count() != n * LATENTS ||
        gradients->element_count() != n * LATENTS * COORDINATES)
        return xla::ffi::Error::InvalidArgument("positions must be frames of the model's beads");
    for (size_t i = 0; i < n; i++)
        latent_cv(x + i * COORDINATES, z->typed_data() + i * LATENTS,
                  gradients->typed_data() + i * LATENTS * COORDINATES);
    return xla::ffi::Error::Success();
}

} // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(latent_cv_xla, evaluate,
                              xla::ffi::Ffi::Bind().Arg<Array>().Ret<Array>().Ret<Array>());
