// Macros that mark functions which run on both GPUs and CPUs.
#pragma once

#if defined(__CUDACC__)
#define TRIREME_HOST_DEVICE __host__ __device__
#else
#define TRIREME_HOST_DEVICE
#endif

/// Marks a function that is always inlined, since a call in a loop keeps the compiler from vectorizing the
/// loop.
#define TRIREME_INLINE [[gnu::always_inline]] TRIREME_HOST_DEVICE inline
