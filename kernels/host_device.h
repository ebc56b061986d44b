// Marks functions that CUDA kernels call as well as the host.
#pragma once

#if defined(__CUDACC__)
#define TRIREME_HOST_DEVICE __host__ __device__
#else
#define TRIREME_HOST_DEVICE
#endif

/// A call in a loop would keep it from becoming vector instructions.
#define TRIREME_INLINE [[gnu::always_inline]] TRIREME_HOST_DEVICE inline
