#include "kernels/cpu/kernels.h"
#include "kernels/cpu/loops.h"

namespace trireme::cpu {

namespace {

template <class Out, class In, class Fn>
void map1(const View& out, const View& in, const Fn& fn) {
  const Loops<2> loops({&out, &in});
  const std::int64_t so = loops.inner_stride(0), si = loops.inner_stride(1);
  loops.run([&](const auto& at, std::int64_t count) {
    Out* o = out.as<Out>() + at[0];
    const In* i = in.as<In>() + at[1];
    if (so == 1 && si == 1)
      for (std::int64_t k = 0; k < count; ++k) o[k] = fn(i[k]);
    else
      for (std::int64_t k = 0; k < count; ++k) o[k * so] = fn(i[k * si]);
  });
}

template <class Out, class In, class Fn>
void map2(const View& out, const View& a, const View& b, const Fn& fn) {
  const Loops<3> loops({&out, &a, &b});
  const std::int64_t so = loops.inner_stride(0), sa = loops.inner_stride(1), sb = loops.inner_stride(2);
  loops.run([&](const auto& at, std::int64_t count) {
    Out* o = out.as<Out>() + at[0];
    const In* x = a.as<In>() + at[1];
    const In* y = b.as<In>() + at[2];
    if (so == 1 && sa == 1 && sb == 1)
      for (std::int64_t k = 0; k < count; ++k) o[k] = fn(x[k], y[k]);
    else if (so == 1 && sa == 1 && sb == 0)
      for (std::int64_t k = 0; k < count; ++k) o[k] = fn(x[k], *y);
    else
      for (std::int64_t k = 0; k < count; ++k) o[k * so] = fn(x[k * sa], y[k * sb]);
  });
}

/// Arithmetic is defined on every dtype but bool.
template <class Fn>
void visit_number(DType dtype, const char* op, Fn&& fn) {
  switch (dtype) {
    case DType::kFloat32:
      return fn(float{});
    case DType::kFloat64:
      return fn(double{});
    case DType::kInt64:
      return fn(std::int64_t{});
    case DType::kUInt8:
      return fn(std::uint8_t{});
    case DType::kBool:
      break;
  }
  fail(ExitCode::kInternal, "{}: not defined for bool; convert it with to_dtype first", op);
}

}  // namespace

void fill(const View& out, double value) {
  visit_dtype(out.dtype, [&](auto type) {
    using T = decltype(type);
    const T filling = static_cast<T>(value);
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
      map1<To, From>(out, in, [](From x) { return static_cast<To>(x); });
    });
  });
}

void unary(UnaryOp op, const View& out, const View& in, double a) {
  visit_number(in.dtype, "unary", [&](auto type) {
    using T = decltype(type);
    switch (op) {
#define TRIREME_CASE(name, expression) \
  case UnaryOp::name:                  \
    return map1<T, T>(out, in, functors::name{a});
      TRIREME_UNARY_OPS(TRIREME_CASE)
#undef TRIREME_CASE
    }
  });
}

void binary(BinaryOp op, const View& out, const View& a, const View& b) {
  visit_number(a.dtype, "binary", [&](auto type) {
    using T = decltype(type);
    switch (op) {
#define TRIREME_CASE(name, expression) \
  case BinaryOp::name:                 \
    return map2<T, T>(out, a, b, functors::name{});
      TRIREME_BINARY_OPS(TRIREME_CASE)
#undef TRIREME_CASE
    }
  });
}

void compare(CompareOp op, const View& out, const View& a, const View& b) {
  visit_dtype(a.dtype, [&](auto type) {
    using T = decltype(type);
    switch (op) {
#define TRIREME_CASE(name, expression) \
  case CompareOp::name:                \
    return map2<bool, T>(out, a, b, functors::name{});
      TRIREME_COMPARE_OPS(TRIREME_CASE)
#undef TRIREME_CASE
    }
  });
}

}  // namespace trireme::cpu
