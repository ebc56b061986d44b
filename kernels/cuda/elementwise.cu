#include "kernels/cuda/kernels.h"
#include "kernels/cuda/map.h"
#include "kernels/progression.h"
#include "kernels/visit.h"

namespace trireme::cuda {

namespace {

template <class T>
struct Fill {
  T value;
  T* out;
  MergedViews<1> views;
  TRIREME_HOST_DEVICE void operator()(std::int64_t i) const { out[views.offsets(i)[0]] = value; }
};

struct Same {
  template <class T>
  TRIREME_HOST_DEVICE T operator()(T x) const {
    return x;
  }
};

struct Choose {
  template <class T>
  TRIREME_HOST_DEVICE T operator()(bool condition, T x, T y) const {
    return condition ? x : y;
  }
};

/// A few words to pinned host memory, which the device can write to: a kernel, because a graph can be given
/// other addresses of kernels.
struct Tell {
  std::uint32_t* host;
  const std::uint32_t* device;
  TRIREME_HOST_DEVICE void operator()(std::int64_t i) const { host[i] = device[i]; }
};

/// out[i] = number(i).
template <class T, class Number>
struct Write {
  Number number;
  T* out;
  TRIREME_HOST_DEVICE void operator()(std::int64_t i) const { out[i] = number(i); }
};

}  // namespace

void enqueue_copy_to_host(void* host, const void* device, std::size_t bytes) {
  TRIREME_CHECK(bytes % sizeof(std::uint32_t) == 0, "copy to the host: {} bytes are no whole words", bytes);
  const auto words = static_cast<std::int64_t>(bytes / sizeof(std::uint32_t));
  parallel_for(words, Tell{static_cast<std::uint32_t*>(host), static_cast<const std::uint32_t*>(device)});
}

void fill(const View& out, Scalar value) {
  visit_dtype(out.dtype, [&](auto type) {
    using T = decltype(type);
    const MergedViews<1> views({&out});
    parallel_for(views.numel(), Fill<T>{value.to<T>(), out.as<T>(), views});
  });
}

void copy(const View& out, const View& in) {
  visit_dtype(out.dtype, [&](auto to) {
    visit_dtype(in.dtype, [&](auto from) { map<decltype(to), decltype(from)>(Same{}, out, in); });
  });
}

void where(const View& out, const View& condition, const View& a, const View& b) {
  visit_dtype(out.dtype, [&](auto type) {
    using T = decltype(type);
    map<T, bool, T, T>(Choose{}, out, condition, a, b);
  });
}

void binary_with_scalars(BinaryOp op, const View& out, const View& a, const View& b, Scalars s) {
  switch (op) {
#define TRIREME_CASE(name, expression)                                      \
  case BinaryOp::name:                                                      \
    return visit_number(a.dtype, #name, [&](auto type) {                    \
      using T = decltype(type);                                             \
      using C = Compute<T>;                                                 \
      map<T, T, T>(functors::name<C>{s.a.to<C>(), s.b.to<C>()}, out, a, b); \
    });
    TRIREME_BINARY_NUMBER_OPS(TRIREME_CASE)
#undef TRIREME_CASE
#define TRIREME_CASE(name, expression)                                      \
  case BinaryOp::name:                                                      \
    return visit_any_floating(a.dtype, #name, [&](auto type) {              \
      using T = decltype(type);                                             \
      using C = Compute<T>;                                                 \
      map<T, T, T>(functors::name<C>{s.a.to<C>(), s.b.to<C>()}, out, a, b); \
    });
    TRIREME_BINARY_FLOATING_OPS(TRIREME_CASE)
#undef TRIREME_CASE
  }
}

void binary(BinaryOp op, const View& out, const View& a, const View& b) {
  binary_with_scalars(op, out, a, b, {});
}

void compare(CompareOp op, const View& out, const View& a, const View& b) {
  switch (op) {
#define TRIREME_CASE(name, expression)                                        \
  case CompareOp::name:                                                       \
    return visit_dtype(a.dtype, [&](auto type) {                              \
      map<bool, decltype(type), decltype(type)>(functors::name{}, out, a, b); \
    });
    TRIREME_COMPARE_OPS(TRIREME_CASE)
#undef TRIREME_CASE
  }
}

void arange(const View& out, Scalar start, Scalar step) {
  visit_dtype(out.dtype, [&](auto type) {
    using T = decltype(type);
    with_arange<T>(start, step, [&](const auto& number) {
      parallel_for(out.numel(), Write<T, std::decay_t<decltype(number)>>{number, out.as<T>()});
    });
  });
}

void linspace(const View& out, Scalar start, Scalar end) {
  visit_dtype(out.dtype, [&](auto type) {
    using T = decltype(type);
    parallel_for(out.numel(), Write<T, Linspace<T>>{linspace_of<T>(start, end, out.numel()), out.as<T>()});
  });
}

}  // namespace trireme::cuda
