#include "core/ops/attention.h"

#include <cmath>
#include <limits>

#include "core/amp/autocast.h"
#include "core/autograd/autograd.h"
#include "core/ops/check.h"
#include "core/ops/operands.h"
#include "core/ops/ops.h"

namespace trireme {

namespace {

constexpr const char* kName = "scaled_dot_product_attention";

/// All but the last two dimensions.
Shape leading(const Tensor& t) {
  Shape lead;
  for (int d = 0; d + 2 < t.dim(); ++d) lead.push_back(t.shape()[d]);
  return lead;
}

Shape matrices(Shape lead, std::int64_t rows, std::int64_t columns) {
  lead.push_back(rows);
  lead.push_back(columns);
  return lead;
}

void check_arguments(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& o) {
  check_same_kind(kName, {&q, &k, &v});
  check_floating(kName, q);
  TRIREME_CHECK(q.dim() >= 2 && k.dim() >= 2 && v.dim() >= 2 && q.size(-1) == k.size(-1) &&
                    k.size(-2) == v.size(-2) && q.size(-1) > 0,
                "{}: q {}, k {} and v {} do not fit; needs (...,L,E), (...,S,E) and (...,S,Ev)", kName,
                q.shape().to_string(), k.shape().to_string(), v.shape().to_string());
  TRIREME_CHECK(o.dropout_p >= 0 && o.dropout_p <= 1, "{}: dropout_p {} is outside 0..1", kName, o.dropout_p);
  TRIREME_CHECK(!o.attn_mask.defined() || !o.is_causal,
                "{}: attn_mask {} and is_causal were both given; put the triangle into the mask", kName,
                o.attn_mask.defined() ? o.attn_mask.shape().to_string() : "");
}

void check_mask(const Tensor& mask, const Tensor& q, const Shape& weights) {
  TRIREME_CHECK(mask.dtype() == DType::kBool || is_floating(mask.dtype()),
                "{}: attn_mask must be bool or floating point, got {}", kName, name_of(mask.dtype()));
  TRIREME_CHECK(mask.device() == q.device(), "{}: devices {} and {} differ", kName, name_of(q.device()),
                name_of(mask.device()));
  TRIREME_CHECK(broadcast_shapes(mask.shape(), weights, kName) == weights,
                "{}: attn_mask {} does not broadcast to the weights {}", kName, mask.shape().to_string(),
                weights.to_string());
}

AttentionRule rule_of(const Shape& lead, std::int64_t width, const AttentionOptions& o) {
  std::int64_t per_sample = 1;
  for (int d = 1; d < lead.size(); ++d) per_sample *= lead[d];
  return {o.scale.value_or(1 / std::sqrt(static_cast<double>(width))),
          o.is_causal,
          o.dropout_p,
          o.key,
          o.first_sample,
          per_sample};
}

/// Computes attention from differentiable ops. `mask` may be undefined.
Tensor unfused(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask,
               const AttentionRule& rule) {
  if (is_low_precision(q.dtype())) {
    const auto wide = [](const Tensor& t) { return to(t, DType::kFloat32); };
    return to(unfused(wide(q), wide(k), wide(v), mask, rule), q.dtype());
  }
  Tensor scores = mul(matmul(q, transpose(k, -1, -2)), rule.scale);
  constexpr double kNever = -std::numeric_limits<double>::infinity();
  if (rule.causal) {
    const Tensor seen = tril(Tensor::ones({q.size(-2), k.size(-2)}, DType::kFloat32, q.device()));
    scores = masked_fill(scores, eq(seen, 0), kNever);
  }
  if (mask.defined())
    scores =
        mask.dtype() == DType::kBool ? masked_fill(scores, logical_not(mask), kNever) : add(scores, mask);
  const Tensor blind = all(eq(scores.detach(), kNever), {-1}, true);
  Tensor weights = masked_fill(softmax(masked_fill(scores, blind, 0)), blind, 0);
  if (rule.dropout_p > 0) {
    const std::int64_t width = rule.matrices_per_sample * q.size(-2) * k.size(-2);
    const Tensor samples = reshape(weights, {width ? weights.numel() / width : 0, width});
    weights = reshape(dropout(samples, rule.dropout_p, rule.key, rule.first_sample), weights.shape());
  }
  return matmul(weights, v);
}

/// `t`, or a copy of it whose rows lie dense.
Tensor dense_rows(const Tensor& t) {
  const std::int64_t rows = t.size(-2), columns = t.size(-1);
  const bool dense =
      (t.strides()[t.dim() - 1] == 1 || columns == 1) && (t.strides()[t.dim() - 2] >= columns || rows == 1);
  return dense ? t : t.row_major();
}

/// Uninitialized (...,rows,width). As t's heads lie between a sample's positions, so do those of the result:
/// joining them again then needs no copy.
Tensor memory_like(const Tensor& t, const Shape& shape) {
  const bool between = t.dim() == 4 && t.strides()[1] < t.strides()[2];
  if (!between) return Tensor::empty(shape, t.dtype(), t.device());
  const std::int64_t heads = shape[1], rows = shape[2], width = shape[3];
  return Tensor::empty_strided(shape, {rows * heads * width, width, heads * width, 1}, t.dtype(), t.device());
}

struct Inputs {
  Tensor q, k, v, mask;
  AttentionRule rule;

  Inputs(const Tensor& a, const Tensor& b, const Tensor& c, const Tensor& m, const AttentionRule& r)
      : q(dense_rows(a)), k(dense_rows(b)), v(dense_rows(c)), mask(m), rule(r) {
    if (mask.defined()) seen = broadcast_view(mask, matrices(leading(q), q.size(-2), k.size(-2)));
  }
  const View* mask_view() const { return mask.defined() ? &seen : nullptr; }
  View seen;
};

void run_backward(Backward& g, const Inputs& in, const Tensor& out, const Tensor& log_sums) {
  const Tensor dout = dense_rows(g.grad), dq = memory_like(in.q, in.q.shape()),
               dk = memory_like(in.k, in.k.shape()), dv = memory_like(in.v, in.v.shape());
  kernels(dq).attention_backward(dq.view(), dk.view(), dv.view(), dout.view(), out.view(), log_sums.view(),
                                 in.q.view(), in.k.view(), in.v.view(), in.mask_view(), in.rule);
  g.set(0, dq);
  g.set(1, dk);
  g.set(2, dv);
}

/// q, k and v have the same leading dimensions.
Tensor fused(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask,
             const AttentionRule& rule) {
  const Inputs in(q, k, v, mask, rule);
  const Shape lead = leading(q);
  Shape queries = lead;
  queries.push_back(q.size(-2));
  const Tensor out = memory_like(q, matrices(lead, q.size(-2), v.size(-1))),
               log_sums = Tensor::empty(queries, full(q.dtype()), q.device());
  kernels(q).attention_forward(out.view(), log_sums.view(), in.q.view(), in.k.view(), in.v.view(),
                               in.mask_view(), rule);
  return record(
      kName, out, {&q, &k, &v},
      [q = Saved(q), k = Saved(k), v = Saved(v), mask = Saved(mask), out = Saved::output(out),
       log_sums = Saved(log_sums), rule](Backward& g) {
        const Tensor seen = g.get(mask);
        if (grad_enabled())
          return differentiate_unfused(
              g, {g.get(q), g.get(k), g.get(v)},
              [seen, rule](const std::vector<Tensor>& t) { return unfused(t[0], t[1], t[2], seen, rule); });
        run_backward(g, Inputs(g.get(q), g.get(k), g.get(v), seen, rule), g.get(out), g.get(log_sums));
      });
}

}  // namespace

Tensor scaled_dot_product_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                                    const AttentionOptions& o) {
  if (const amp::Cast c(kName, {&q, &k, &v, &o.attn_mask}); c) {
    AttentionOptions low = o;
    low.attn_mask = c[3];
    return scaled_dot_product_attention(c[0], c[1], c[2], low);
  }
  check_arguments(q, k, v, o);
  const Shape lead = broadcast_shapes(leading(q), broadcast_shapes(leading(k), leading(v), kName), kName);
  Tensor mask = o.attn_mask;
  if (mask.defined()) check_mask(mask, q, matrices(lead, q.size(-2), k.size(-2)));
  // All between the products is computed in this type.
  if (mask.defined() && mask.dtype() != DType::kBool) mask = to(mask, full(q.dtype()));
  const DType inside = is_widened(q) ? DType::kFloat32 : q.dtype();
  const auto ready = [&](const Tensor& t) {
    const Shape wanted = matrices(lead, t.size(-2), t.size(-1));
    return to(t.shape() == wanted ? t : expand(t, wanted), inside);
  };
  const AttentionRule rule = rule_of(lead, q.size(-1), o);
  const bool mask_learns = mask.defined() && recording({&mask});
  return to((mask_learns ? unfused : fused)(ready(q), ready(k), ready(v), mask, rule), q.dtype());
}

}  // namespace trireme
