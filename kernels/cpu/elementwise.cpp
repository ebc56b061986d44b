#include "kernels/cpu/kernels.h"
#include "kernels/cpu/loops.h"

namespace trireme::cpu {

void copy_from_host(void* device, const void* host, std::size_t bytes) {
  std::copy_n(static_cast<const std::byte*>(host), bytes, static_cast<std::byte*>(device));
}
void copy_to_host(void* host, const void* device, std::size_t bytes) { copy_from_host(host, device, bytes); }
void enqueue_copy_to_host(void* host, const void* device, std::size_t bytes) {
  copy_from_host(host, device, bytes);
}

void fill(const View& out, Scalar value) {
  visit_dtype(out.dtype, [&](auto type) {
    using T = decltype(type);
    const T filling = value.to<T>();
    const Loops<1> loops({&out});
    const std::int64_t stride = loops.inner_stride(0);
    loops.run([&](const auto& at, std::int64_t count) {
      T* o = out.as<T>() + at[0];
      for (std::int64_t k = 0; k < count; ++k) o[k * stride] = filling;
    });
  });
}

void copy(const View& out, const View& in) {
  visit_dtype(out.dtype, [&](auto to) {
    visit_dtype(in.dtype, [&](auto from) {
      using To = decltype(to);
      using From = decltype(from);
      map<To, From>([](auto x) { return x; }, out, in);
    });
  });
}

void where(const View& out, const View& condition, const View& a, const View& b) {
  visit_dtype(out.dtype, [&](auto type) {
    using T = decltype(type);
    map<T, bool, T, T>([](bool c, auto x, auto y) { return c ? x : y; }, out, condition, a, b);
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

}  // namespace trireme::cpu
