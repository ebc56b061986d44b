#include "core/autograd/autograd.h"
#include "core/ops/check.h"
#include "core/ops/ops.h"

namespace trireme {

namespace {

/// Log-probabilities of the rows of a dense x; not recorded.
Tensor log_softmax_rows(const Tensor& x) {
  const Tensor in = x.row_major(), out = Tensor::empty(x.shape(), x.dtype(), x.device());
  const std::int64_t width = x.size(-1), rows = width ? x.numel() / width : 0;
  const auto as_rows = [&](const Tensor& t) { return t.alias({rows, width}, {width, 1}, t.offset()).view(); };
  kernels(x).log_softmax(as_rows(out), as_rows(in));
  return out;
}

void check_labels(const Tensor& logits, const Tensor& labels) {
  check_floating("cross_entropy", logits);
  check_dims("cross_entropy", "logits (N,C)", logits, 2);
  TRIREME_CHECK(labels.defined() && labels.dtype() == DType::kInt64,
                "cross_entropy: labels must be int64, got {}",
                labels.defined() ? name_of(labels.dtype()) : "an undefined tensor");
  TRIREME_CHECK(labels.dim() == 1 && labels.size(0) == logits.size(0),
                "cross_entropy: logits {} need labels ({}), got {}", logits.shape().to_string(),
                logits.size(0), labels.shape().to_string());
  const std::int64_t classes = logits.size(1);
  for (std::int64_t i = 0; i < labels.numel(); ++i) {
    const std::int64_t label = labels.data<std::int64_t>()[i * labels.strides()[0]];
    TRIREME_CHECK(label >= 0 && label < classes, "cross_entropy: label {} of row {} is outside 0..{}", label,
                  i, classes - 1);
  }
}

}  // namespace

Tensor log_softmax(const Tensor& x) {
  check_floating("log_softmax", x);
  TRIREME_CHECK(x.dim() >= 1, "log_softmax: needs at least one dimension, got shape {}",
                x.shape().to_string());
  const Tensor y = log_softmax_rows(x);
  return record("log_softmax", y, {&x}, [y = Saved::output(y)](Backward& g) {
    g.set(0, sub(g.grad, mul(exp(g.get(y)), sum(g.grad, {-1}, true))));
  });
}

Tensor softmax(const Tensor& x) { return exp(log_softmax(x)); }

Tensor cross_entropy(const Tensor& logits, const Tensor& labels, double label_smoothing) {
  check_labels(logits, labels);
  TRIREME_CHECK(label_smoothing >= 0 && label_smoothing <= 1,
                "cross_entropy: label_smoothing {} is outside 0..1", label_smoothing);
  const Tensor lp = log_softmax_rows(logits), y = labels.row_major();
  const Tensor losses = Tensor::empty({logits.size(0)}, logits.dtype(), logits.device());
  kernels(logits).nll_forward(losses.view(), lp.view(), y.view(), label_smoothing);
  const Tensor each = record("cross_entropy", losses, {&logits}, [lp, y, label_smoothing](Backward& g) {
    g.once_only();
    const Tensor dx = Tensor::empty(lp.shape(), lp.dtype(), lp.device()), dlosses = g.grad.row_major();
    kernels(dx).cross_entropy_backward(dx.view(), dlosses.view(), lp.view(), y.view(), label_smoothing);
    g.set(0, dx);
  });
  return mean(each);
}

Tensor mse_loss(const Tensor& x, const Tensor& target) {
  check_same_kind("mse_loss", {&x, &target});
  check_floating("mse_loss", x);
  TRIREME_CHECK(x.shape() == target.shape(), "mse_loss: shapes {} and {} differ", x.shape().to_string(),
                target.shape().to_string());
  const Tensor difference = sub(x, target);
  return mean(mul(difference, difference));
}

}  // namespace trireme
