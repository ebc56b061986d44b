// Apart from elementwise.cpp because it takes long to compile.
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/loops.h"

namespace trireme::cpu {

void unary(UnaryOp op, const View& out, const View& in, Scalars s) {
  switch (op) {
#define TRIREME_CASE(name, expression)                                 \
  case UnaryOp::name:                                                  \
    return visit_number(in.dtype, #name, [&](auto type) {              \
      using T = decltype(type);                                        \
      using C = Compute<T>;                                            \
      map<T, T>(functors::name<C>{s.a.to<C>(), s.b.to<C>()}, out, in); \
    });
    TRIREME_UNARY_NUMBER_OPS(TRIREME_CASE)
#undef TRIREME_CASE
#define TRIREME_CASE(name, expression)                                 \
  case UnaryOp::name:                                                  \
    return visit_any_floating(in.dtype, #name, [&](auto type) {        \
      using T = decltype(type);                                        \
      using C = Compute<T>;                                            \
      map<T, T>(functors::name<C>{s.a.to<C>(), s.b.to<C>()}, out, in); \
    });
    TRIREME_UNARY_FLOATING_OPS(TRIREME_CASE)
#undef TRIREME_CASE
  }
}

}  // namespace trireme::cpu
