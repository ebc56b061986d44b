#include "core/amp/autocast.h"

#include <string_view>
#include <unordered_map>

namespace trireme::amp {

namespace {

enum class Rule {
  kLow,      ///< computes in 16 bits
  kRounded,  ///< like the previous rule; where kernels have only float32, its numbers are rounded and its
             ///< result is float32
  kImages,   ///< like kFull; where kernels take images of 16 bits, they stay so
  kFull,     ///< computes in float32
  kOwn,      ///< computes in float32, too, but converts by itself, on the way
};

constexpr struct {
  std::string_view op;
  Rule rule;
} kRules[] = {{"linear", Rule::kLow},
              {"matmul", Rule::kLow},
              {"bmm", Rule::kLow},
              {"scaled_dot_product_attention", Rule::kLow},
              {"conv1d", Rule::kRounded},
              {"conv2d", Rule::kRounded},
              {"conv_transpose2d", Rule::kRounded},
              {"batch_norm", Rule::kImages},
              {"layer_norm", Rule::kFull},
              {"rms_norm", Rule::kFull},
              {"group_norm", Rule::kFull},
              {"lstm_cell", Rule::kFull},
              {"gru_cell", Rule::kFull},
              {"softmax", Rule::kFull},
              {"log_softmax", Rule::kFull},
              {"logsumexp", Rule::kFull},
              {"sum", Rule::kFull},
              {"prod", Rule::kFull},
              {"mean", Rule::kFull},
              {"var", Rule::kFull},
              {"std", Rule::kFull},
              {"norm", Rule::kFull},
              {"cumsum", Rule::kFull},
              {"cross_entropy", Rule::kOwn},
              {"nll_loss", Rule::kFull},
              {"mse_loss", Rule::kFull},
              {"l1_loss", Rule::kFull},
              {"huber_loss", Rule::kFull},
              {"bce_with_logits", Rule::kFull},
              {"kl_div", Rule::kFull}};

Rule rule_of(std::string_view op) {
  for (const auto& entry : kRules)
    if (entry.op == op) return entry.rule;
  fail(ExitCode::kInternal, "autocast: there is no rule for {}", op);
}

/// Returns `t` converted to `dtype`. Unlike to(), it keeps the order of elements in memory.
Tensor converted(const Tensor& t, DType dtype) {
  if (t.dtype() == dtype) return t;
  const Tensor out = t.is_dense() ? Tensor::empty_strided(t.shape(), t.strides(), dtype, t.device())
                                  : Tensor::empty(t.shape(), dtype, t.device());
  copy_into(out, t);
  return record("to", out, {&t}, [from = t.dtype()](Backward& g) { g.set(0, converted(g.grad, from)); });
}

/// Parameters as they were converted under the guards that are open on this thread.
struct Cache {
  struct Entry {
    Tensor parameter;  // keeps the key from being given to another
    std::uint32_t version;
    Tensor low;
  };
  int guards = 0;
  std::unordered_map<const TensorImpl*, Entry> entries;
};
thread_local Cache cache;

Tensor rounded(const Tensor& t, DType low) {
  // Without a guard this is a recomputation.
  const bool kept = cache.guards > 0 && t.requires_grad() && t.is_leaf();
  if (!kept || t.dtype() == low) return converted(t, low);
  auto found = cache.entries.find(t.impl());
  if (found == cache.entries.end() || found->second.version != t.version() ||
      found->second.low.dtype() != low)
    found = cache.entries.insert_or_assign(t.impl(), Cache::Entry{t, t.version(), converted(t.detach(), low)})
                .first;
  // Each use has a history of its own: gradients of all uses meet in the parameter's own type.
  return record("to", found->second.low.detach(), {&t},
                [from = t.dtype()](Backward& g) { g.set(0, converted(g.grad, from)); });
}

Tensor as_taken(Rule rule, const Tensor& t, DType low) {
  // Integers and float64 are nobody's business here.
  if (!t.defined() || !(t.dtype() == DType::kFloat32 || is_low_precision(t.dtype()))) return t;
  if (rule == Rule::kOwn) return t;
  if (rule == Rule::kFull || rule == Rule::kImages) return converted(t, DType::kFloat32);
  const Tensor small = rounded(t, low);
  return rule == Rule::kRounded && is_widened(small) ? converted(small, DType::kFloat32) : small;
}

}  // namespace

Autocast::Autocast(bool on, DType low) : scope_({on, low}) {
  TRIREME_CHECK(is_low_precision(low), "autocast: bfloat16 or float16 are computed in, not {}", name_of(low));
  ++cache.guards;
}

Autocast::~Autocast() {
  if (--cache.guards == 0) cache.entries.clear();
}

void Cast::convert(const char* op, std::initializer_list<const Tensor*> arguments) {
  const Rule rule = rule_of(op);
  const Tensor& first = **arguments.begin();
  const bool stays =
      rule == Rule::kImages && first.defined() && is_low_precision(first.dtype()) && !is_widened(first);
  for (const Tensor* t : arguments)
    converted_.push_back(stays && t->defined() && t->dim() == first.dim()
                             ? converted(*t, first.dtype())
                             : as_taken(rule, *t, autocast_mode.low));
  autocast_mode.on = false;
}

}  // namespace trireme::amp
