#include "core/profiler/timed_kernels.h"

#include <type_traits>

#include "core/metrics/trace.h"

namespace trireme::profiler {

namespace {

#define TRIREME_TEXT(name, expression) #name,
constexpr const char* kUnaryNames[] = {TRIREME_UNARY_OPS(TRIREME_TEXT)};
constexpr const char* kBinaryNames[] = {TRIREME_BINARY_OPS(TRIREME_TEXT)};
constexpr const char* kCompareNames[] = {TRIREME_COMPARE_OPS(TRIREME_TEXT)};
#undef TRIREME_TEXT

/// The name of a call: an elementwise kernel is called what it computes.
template <class First>
const char* called(const char* kernel, const First& first) {
  if constexpr (std::is_same_v<First, UnaryOp>)
    return kUnaryNames[static_cast<int>(first)];
  else if constexpr (std::is_same_v<First, BinaryOp>)
    return kBinaryNames[static_cast<int>(first)];
  else if constexpr (std::is_same_v<First, CompareOp>)
    return kCompareNames[static_cast<int>(first)];
  else
    return kernel;
}

class Timer {
 public:
  explicit Timer(const char* name) : name_(name), begin_ns_(Trace::now_ns()) {}
  ~Timer() { kernel_clock->kernel_ran(name_, begin_ns_, Trace::now_ns()); }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

 private:
  const char* name_;
  std::int64_t begin_ns_;
};

template <auto kMember>
struct Timed;

template <class Result, class First, class... Rest, Result (*KernelTable::*kMember)(First, Rest...)>
struct Timed<kMember> {
  static inline const char* name = "";
  static Result run(First first, Rest... rest) {
    const Timer timer(called(name, first));
    return (kernels_of(kCpu).*kMember)(first, rest...);
  }
};

template <auto kMember>
void time(KernelTable& table, const char* name) {
  Timed<kMember>::name = name;
  table.*kMember = Timed<kMember>::run;
}

KernelTable made() {
  KernelTable table = kernels_of(kCpu);  // with an entry that is missing below, the plain one is called
#define TRIREME_TIME(entry) time<&KernelTable::entry>(table, #entry);
  TRIREME_TIME(copy_from_host)
  TRIREME_TIME(copy_to_host)
  TRIREME_TIME(enqueue_copy_to_host)
  TRIREME_TIME(fill)
  TRIREME_TIME(copy)
  TRIREME_TIME(unary)
  TRIREME_TIME(binary)
  TRIREME_TIME(binary_with_scalars)
  TRIREME_TIME(compare)
  TRIREME_TIME(where)
  TRIREME_TIME(reduce)
  TRIREME_TIME(arg_extreme)
  TRIREME_TIME(cumsum)
  TRIREME_TIME(gather)
  TRIREME_TIME(scatter)
  TRIREME_TIME(argsort)
  TRIREME_TIME(nonzero)
  TRIREME_TIME(arange)
  TRIREME_TIME(linspace)
  TRIREME_TIME(matmul)
  TRIREME_TIME(conv2d_forward)
  TRIREME_TIME(conv2d_backward_input)
  TRIREME_TIME(conv2d_backward_weight)
  TRIREME_TIME(resample_forward)
  TRIREME_TIME(resample_backward)
  TRIREME_TIME(pool_forward)
  TRIREME_TIME(pool_backward)
  TRIREME_TIME(batch_norm_statistics)
  TRIREME_TIME(batch_norm_apply)
  TRIREME_TIME(batch_norm_backward)
  TRIREME_TIME(row_norm_forward)
  TRIREME_TIME(row_norm_backward)
  TRIREME_TIME(row_norm_parameters)
  TRIREME_TIME(log_softmax)
  TRIREME_TIME(cross_entropy_forward)
  TRIREME_TIME(cross_entropy_backward)
  TRIREME_TIME(attention_forward)
  TRIREME_TIME(attention_backward)
  TRIREME_TIME(lstm_forward)
  TRIREME_TIME(lstm_backward)
  TRIREME_TIME(gru_forward)
  TRIREME_TIME(gru_backward)
  TRIREME_TIME(dropout)
  TRIREME_TIME(uniform)
  TRIREME_TIME(normal)
  TRIREME_TIME(sgd)
  TRIREME_TIME(adamw)
  TRIREME_TIME(chunk_squares)
  TRIREME_TIME(tree_sum)
  TRIREME_TIME(first_not_finite)
  TRIREME_TIME(running_average)
#undef TRIREME_TIME
  return table;
}

}  // namespace

const KernelTable& timed_kernels() {
  static const KernelTable table = made();
  return table;
}

}  // namespace trireme::profiler
