// Softmax and losses.
#include <cmath>

#include "core/amp/autocast.h"
#include "core/autograd/autograd.h"
#include "core/ops/check.h"
#include "core/ops/operands.h"
#include "core/ops/ops.h"

namespace trireme {

namespace {

/// Log-probabilities of the rows of x; not recorded.
Tensor log_softmax_rows(const Tensor& x) {
  const Tensor in = x.row_major(), out = Tensor::empty(x.shape(), x.dtype(), x.device());
  const std::int64_t width = x.size(-1), rows = width ? x.numel() / width : 0;
  const auto as_rows = [&](const Tensor& t) { return t.alias({rows, width}, {width, 1}, t.offset()).view(); };
  kernels(x).log_softmax(as_rows(out), as_rows(in));
  return out;
}

/// Over the last dimension.
Tensor last_log_softmax(const Tensor& x) {
  const Tensor y = log_softmax_rows(x);
  return record("log_softmax", y, {&x}, [y = Saved::output(y)](Backward& g) {
    g.set(0, sub(g.grad, mul(exp(g.get(y)), sum(g.grad, {-1}, true))));
  });
}

/// Returns log-probabilities along `dim`. The dtype of x has more than 16 bits. An x without dimensions is
/// one class.
Tensor along(const char* op, const Tensor& x, int dim) {
  dim = wrap_dim(dim, x.dim(), op);
  if (x.dim() == 0) return reshape(last_log_softmax(reshape(x, {1})), {});
  if (dim == x.dim() - 1) return last_log_softmax(x);
  const Tensor turned = transpose(last_log_softmax(transpose(x, dim, -1)), dim, -1);
  return x.is_contiguous() ? contiguous(turned) : turned;  // row-major as x is: reshape() shall give a view
}

Tensor reduced(const Tensor& losses, LossReduction reduction) {
  if (reduction == LossReduction::kNone) return losses;
  return reduction == LossReduction::kSum ? sum(losses) : mean(losses);
}

/// Returns the losses fn(x, target), reduced. 16-bit numbers are computed with in float32 up to the end.
template <class Fn>
Tensor loss_of(const Fn& fn, const Tensor& x, const Tensor& target, LossReduction reduction) {
  return in_full([&](const Tensor& a, const Tensor& b) { return reduced(fn(a, b), reduction); }, x, target);
}

void check_pair(const char* op, const Tensor& x, const Tensor& target) {
  check_same_kind(op, {&x, &target});
  check_floating(op, x);
  TRIREME_CHECK(x.shape() == target.shape(), "{}: shapes {} and {} differ", op, x.shape().to_string(),
                target.shape().to_string());
}

/// Labels of rows, dense; throws unless each is a class or `ignored`. Tells whether one is ignored.
bool check_labels(const char* op, const Tensor& logits, const Tensor& labels, std::int64_t ignored) {
  TRIREME_CHECK(labels.defined() && labels.dtype() == DType::kInt64, "{}: labels must be int64, got {}", op,
                labels.defined() ? name_of(labels.dtype()) : "an undefined tensor");
  TRIREME_CHECK(labels.dim() == 1 && labels.size(0) == logits.size(0),
                "{}: logits {} need labels ({}), got {}", op, logits.shape().to_string(), logits.size(0),
                labels.shape().to_string());
  const std::int64_t classes = logits.size(1);
  const Tensor here = host_values(labels);
  bool any_ignored = false;
  for (std::int64_t i = 0; i < here.numel(); ++i) {
    const std::int64_t label = here.data<std::int64_t>()[i * here.strides()[0]];
    any_ignored = any_ignored || label == ignored;
    TRIREME_CHECK(label == ignored || (label >= 0 && label < classes),
                  "{}: label {} of row {} is outside 0..{}", op, label, i, classes - 1);
  }
  return any_ignored;
}

/// Any number of classes next to the batch: (N,C,...) with labels (N,...) as rows (M,C) with labels (M).
Tensor class_rows(const Tensor& x) {
  std::vector<int> order{0};
  for (int d = 2; d < x.dim(); ++d) order.push_back(d);
  order.push_back(1);
  return reshape(permute(x, order), {-1, x.size(1)});
}

/// Weighted negative log-likelihood of rows of log-probabilities. What is ignored is selected away: it may be
/// infinite.
Tensor weighted_nll(const Tensor& log_p, const Tensor& labels, const CrossEntropyOptions& o) {
  const Tensor kept = ne(labels, o.ignore_index), none = Tensor::zeros({}, log_p.dtype(), log_p.device());
  const Tensor safe = where(kept, labels, Tensor::zeros({}, DType::kInt64, labels.device()));
  Tensor weight = to(kept, log_p.dtype()), losses = neg(squeeze(gather(log_p, 1, unsqueeze(safe, 1)), 1));
  if (o.weight.defined()) {
    weight = where(kept, index_select(o.weight, 0, safe), none);
    losses = mul(losses, weight);
  }
  losses = where(kept, losses, none);
  if (o.label_smoothing != 0) {
    const Tensor all = o.weight.defined() ? sum(mul(log_p, o.weight), {1}) : sum(log_p, {1});
    const Tensor spread =
        where(kept, mul(all, -o.label_smoothing / static_cast<double>(log_p.size(1))), none);
    losses = add(mul(losses, 1 - o.label_smoothing), spread);
  }
  return o.reduction == LossReduction::kMean ? div(sum(losses), sum(weight)) : reduced(losses, o.reduction);
}

/// One kernel, without weights and ignored labels.
Tensor fused_cross_entropy(const Tensor& logits, const Tensor& labels, double smoothing) {
  const Tensor x = logits.row_major(), y = labels.row_major();
  const Tensor losses = Tensor::empty({x.size(0)}, full(x.dtype()), x.device()),
               normalizers = Tensor::empty({x.size(0), 2}, losses.dtype(), x.device());
  kernels(x).cross_entropy_forward(losses.view(), normalizers.view(), x.view(), y.view(), smoothing);
  return record(
      "cross_entropy", losses, {&logits},
      [logits = Saved(logits), normalizers = Saved(normalizers), saved_y = Saved(y), smoothing](Backward& g) {
        const Tensor in = g.get(logits), rows = g.get(saved_y);
        if (grad_enabled())
          return differentiate_unfused(g, {in}, [rows, smoothing](const std::vector<Tensor>& t) {
            return weighted_nll(log_softmax(to(t[0], full(t[0].dtype()))), rows,
                                {.label_smoothing = smoothing, .reduction = LossReduction::kNone});
          });
        const Tensor dlosses = g.grad.row_major(), dx = Tensor::empty(in.shape(), in.dtype(), in.device());
        kernels(dx).cross_entropy_backward(dx.view(), dlosses.view(), in.row_major().view(),
                                           g.get(normalizers).view(), rows.view(), smoothing);
        g.set(0, dx);
      });
}

void check_classes(const char* op, const Tensor& x, const CrossEntropyOptions& o) {
  check_floating(op, x);
  TRIREME_CHECK(x.dim() >= 2, "{}: logits (N,C,...) need 2 dimensions or more, got shape {}", op,
                x.shape().to_string());
  TRIREME_CHECK(o.label_smoothing >= 0 && o.label_smoothing <= 1, "{}: label_smoothing {} is outside 0..1",
                op, o.label_smoothing);
  TRIREME_CHECK(!o.weight.defined() ||
                    (o.weight.dim() == 1 && o.weight.size(0) == x.size(1) && o.weight.dtype() == x.dtype()),
                "{}: weight {} does not fit {} classes of {}", op,
                o.weight.defined() ? o.weight.shape().to_string() : "", x.size(1), name_of(x.dtype()));
}

/// In float32 of 16 bits.
Tensor full_cross_entropy(const Tensor& logits, const Tensor& labels, const CrossEntropyOptions& o) {
  check_defined("cross_entropy", logits);
  if (o.weight.defined() && is_low_precision(logits.dtype())) {
    CrossEntropyOptions wide = o;
    wide.weight = to(o.weight, DType::kFloat32);
    return full_cross_entropy(to(logits, DType::kFloat32), labels, wide);
  }
  check_classes("cross_entropy", logits, o);
  if (logits.dim() > 2) {
    check_defined("cross_entropy", labels);
    const Tensor losses = full_cross_entropy(class_rows(logits), reshape(labels, {labels.numel()}), o);
    return o.reduction == LossReduction::kNone ? reshape(losses, labels.shape()) : losses;
  }
  const bool any_ignored = check_labels("cross_entropy", logits, labels, o.ignore_index);
  if (!any_ignored && !o.weight.defined())
    return reduced(fused_cross_entropy(logits, labels, o.label_smoothing), o.reduction);
  return weighted_nll(log_softmax(to(logits, full(logits.dtype()))), labels.row_major(), o);
}

}  // namespace

Tensor log_softmax(const Tensor& x, int dim) {
  if (const amp::Cast c("log_softmax", {&x}); c) return log_softmax(c[0], dim);
  check_floating("log_softmax", x);
  return in_full([dim](const Tensor& t) { return along("log_softmax", t, dim); }, x);
}
Tensor softmax(const Tensor& x, int dim) {
  if (const amp::Cast c("softmax", {&x}); c) return softmax(c[0], dim);
  check_floating("softmax", x);
  return in_full([dim](const Tensor& t) { return exp(along("softmax", t, dim)); }, x);
}

Tensor cross_entropy(const Tensor& logits, const Tensor& labels, const CrossEntropyOptions& o) {
  if (const amp::Cast c("cross_entropy", {&logits}); c) return full_cross_entropy(c[0], labels, o);
  const Tensor losses = full_cross_entropy(logits, labels, o);
  return to(losses, logits.dtype());
}

Tensor nll_loss(const Tensor& log_probabilities, const Tensor& labels, const CrossEntropyOptions& o) {
  if (const amp::Cast c("nll_loss", {&log_probabilities}); c) return nll_loss(c[0], labels, o);
  check_classes("nll_loss", log_probabilities, o);
  const Tensor rows = log_probabilities.dim() > 2 ? class_rows(log_probabilities) : log_probabilities;
  check_defined("nll_loss", labels);
  const Tensor flat = reshape(labels, {labels.numel()}).row_major();
  check_labels("nll_loss", rows, flat, o.ignore_index);
  const Tensor losses = in_full(
      [&](const Tensor& log_p, const Tensor& weight) {
        CrossEntropyOptions wide = o;
        wide.weight = weight;
        return weighted_nll(log_p, flat, wide);
      },
      rows, o.weight);
  return o.reduction == LossReduction::kNone ? reshape(losses, labels.shape()) : losses;
}

Tensor mse_loss(const Tensor& x, const Tensor& target, LossReduction reduction) {
  if (const amp::Cast c("mse_loss", {&x, &target}); c) return mse_loss(c[0], c[1], reduction);
  check_pair("mse_loss", x, target);
  return loss_of([](const Tensor& a, const Tensor& b) { return square(sub(a, b)); }, x, target, reduction);
}

Tensor l1_loss(const Tensor& x, const Tensor& target, LossReduction reduction) {
  if (const amp::Cast c("l1_loss", {&x, &target}); c) return l1_loss(c[0], c[1], reduction);
  check_pair("l1_loss", x, target);
  return loss_of([](const Tensor& a, const Tensor& b) { return abs(sub(a, b)); }, x, target, reduction);
}

namespace {

/// Returns op(x, t) element by element for two tensors of one shape and dtype. Records nothing.
Tensor run_pair(BinaryOp op, const Tensor& x, const Tensor& t, Scalars scalars = {}) {
  const Tensor out = Tensor::empty_like(x);
  kernels(x).binary_with_scalars(op, out.view(), x.view(), t.view(), scalars);
  return out;
}

/// Returns x - t, cut to -delta..delta. Its gradient is 0 where it is cut, the ends included.
Tensor huber_slope(const Tensor& x, const Tensor& t, double delta) {
  return record("huber_loss", run_pair(BinaryOp::huber_slope, x, t, {delta}), {&x, &t},
                [x = Saved(x), t = Saved(t), delta](Backward& g) {
                  const Tensor distance = abs(sub(g.get(x), g.get(t)).detach());
                  const Tensor passed = masked_fill(g.grad, ge(distance, delta), 0);
                  if (g.needs(0)) g.set(0, passed);
                  if (g.needs(1)) g.set(1, neg(passed));
                });
}

/// Returns the Huber loss of each element: with d = x - t, it is d^2 / 2 for |d| <= delta, and linear beyond.
Tensor huber(const Tensor& x, const Tensor& t, double delta) {
  return record("huber_loss", run_pair(BinaryOp::huber, x, t, {delta}), {&x, &t},
                [x = Saved(x), t = Saved(t), delta](Backward& g) {
                  const Tensor slope = mul(g.grad, huber_slope(g.get(x), g.get(t), delta));
                  if (g.needs(0)) g.set(0, slope);
                  if (g.needs(1)) g.set(1, neg(slope));
                });
}

/// Returns sigmoid(x) - t.
Tensor bce_slope(const Tensor& x, const Tensor& t) {
  return record("bce_with_logits", run_pair(BinaryOp::bce_with_logits_slope, x, t), {&x, &t},
                [x = Saved(x)](Backward& g) {
                  const Tensor at = g.get(x);
                  g.set(0, mul(g.grad, mul(sigmoid(at), sigmoid(neg(at)))));
                  g.set(1, neg(g.grad));
                });
}

Tensor binary_cross_entropy(const Tensor& x, const Tensor& t) {
  return record("bce_with_logits", run_pair(BinaryOp::bce_with_logits, x, t), {&x, &t},
                [x = Saved(x), t = Saved(t)](Backward& g) {
                  const Tensor at = g.get(x);
                  if (g.needs(0)) g.set(0, mul(g.grad, bce_slope(at, g.get(t))));
                  if (g.needs(1)) g.set(1, neg(mul(g.grad, at)));
                });
}

Tensor divergence(const Tensor& log_x, const Tensor& target) {
  const Tensor one = Tensor::ones({}, target.dtype(), target.device());
  return mul(target, sub(log(where(eq(target.detach(), 0), one, target)), log_x));
}

}  // namespace

Tensor huber_loss(const Tensor& x, const Tensor& target, double delta, LossReduction reduction) {
  if (const amp::Cast c("huber_loss", {&x, &target}); c) return huber_loss(c[0], c[1], delta, reduction);
  check_pair("huber_loss", x, target);
  TRIREME_CHECK(delta > 0, "huber_loss: delta {} must be positive", delta);
  return loss_of([delta](const Tensor& a, const Tensor& b) { return huber(a, b, delta); }, x, target,
                 reduction);
}

Tensor bce_with_logits(const Tensor& x, const Tensor& target, LossReduction reduction) {
  if (const amp::Cast c("bce_with_logits", {&x, &target}); c) return bce_with_logits(c[0], c[1], reduction);
  check_pair("bce_with_logits", x, target);
  return loss_of(binary_cross_entropy, x, target, reduction);
}

Tensor kl_div(const Tensor& log_x, const Tensor& target, LossReduction reduction) {
  if (const amp::Cast c("kl_div", {&log_x, &target}); c) return kl_div(c[0], c[1], reduction);
  check_pair("kl_div", log_x, target);
  return loss_of(divergence, log_x, target, reduction);
}

}  // namespace trireme
