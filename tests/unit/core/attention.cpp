// Compares fused attention over several blocks with attention that is composed of other ops.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/autograd/autograd.h"
#include "core/ops/ops.h"

namespace trireme {
namespace {

constexpr std::int64_t kLength = 150, kKeys = 1100, kWidth = 24;

struct Results {
  Tensor out, dq, dk, dv;
};

struct Trial {
  const char* name;
  AttentionOptions options;
};

Tensor draw(const Shape& shape, std::uint64_t which, DType dtype) {
  return to(normal(shape, {which}, 0, 1.5, DType::kFloat64), dtype);
}

Results run(DType dtype, const std::function<Tensor(const Tensor&, const Tensor&, const Tensor&)>& fn) {
  Tensor q = draw({2, 3, kLength, kWidth}, 1, dtype), k = draw({2, 3, kKeys, kWidth}, 2, dtype),
         v = draw({2, 3, kKeys, kWidth}, 3, dtype);
  for (Tensor* t : {&q, &k, &v}) t->set_requires_grad(true);
  const Tensor out = fn(q, k, v);
  backward(sum(mul(out, draw(out.shape(), 4, dtype))));
  return {out.detach(), q.grad(), k.grad(), v.grad()};
}

/// Computes attention with all weights in one tensor.
Tensor composed(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& o) {
  Tensor scores = mul(matmul(q, transpose(k, 2, 3)), 1 / std::sqrt(static_cast<double>(kWidth)));
  const double never = -std::numeric_limits<double>::infinity();
  if (o.is_causal) scores = masked_fill(scores, eq(tril(Tensor::ones({kLength, kKeys})), 0), never);
  if (o.attn_mask.defined()) scores = masked_fill(scores, logical_not(o.attn_mask), never);
  Tensor weights = softmax(scores);
  if (o.dropout_p > 0) weights = dropout(weights, o.dropout_p, o.key, o.first_sample);
  return matmul(weights, v);
}

/// Returns a random mask. Queries after number 64 see none of the first 600 keys, which include the first
/// block.
Tensor late_mask() {
  const Tensor noise = uniform({2, 1, kLength, kKeys}, {9});
  const Tensor row = unsqueeze(arange(0, kLength), 1), key = arange(0, kKeys);
  return logical_and(lt(noise, 0.7), logical_or(le(row, 64), ge(key, 600)));
}

std::vector<Trial> trials() {
  return {{"plain", {}},
          {"causal", {.is_causal = true}},
          {"dropout", {.dropout_p = 0.3, .key = {5}, .first_sample = 11}},
          {"causal dropout", {.dropout_p = 0.3, .is_causal = true, .key = {5}}},
          {"mask", {.attn_mask = late_mask()}}};
}

void expect_close(const Tensor& got, const Tensor& wanted, double tolerance) {
  ASSERT_EQ(got.shape(), wanted.shape());
  const double error = amax(abs(sub(got, wanted))).item(), size = amax(abs(wanted)).item();
  EXPECT_LE(error, tolerance * size);
}

TEST(Attention, BlocksGiveWhatTheWholeGives) {
  for (const Trial& trial : trials())
    for (const auto& [dtype, tolerance] :
         {std::pair{DType::kFloat64, 1e-13}, {DType::kFloat32, 2e-6}, {DType::kBFloat16, 1e-2}}) {
      SCOPED_TRACE(std::string(trial.name) + " of " + std::string(name_of(dtype)));
      const Results got = run(dtype, [&](const Tensor& q, const Tensor& k, const Tensor& v) {
        return scaled_dot_product_attention(q, k, v, trial.options);
      });
      const Results wanted = run(DType::kFloat64, [&](const Tensor& q, const Tensor& k, const Tensor& v) {
        const auto rounded = [dtype = dtype](const Tensor& t) { return to(to(t, dtype), DType::kFloat64); };
        return composed(rounded(q), rounded(k), rounded(v), trial.options);
      });
      EXPECT_EQ(got.out.dtype(), dtype);
      EXPECT_EQ(got.dq.dtype(), dtype);
      expect_close(to(got.out, DType::kFloat64), wanted.out, tolerance);
      expect_close(to(got.dq, DType::kFloat64), wanted.dq, tolerance);
      expect_close(to(got.dk, DType::kFloat64), wanted.dk, tolerance);
      expect_close(to(got.dv, DType::kFloat64), wanted.dv, tolerance);
    }
}

TEST(Attention, HeadsOfOneProjectionNeedNoCopy) {
  // Views (N,L,H,E) as (N,H,L,E), like a layer that divides its projection into heads.
  const Tensor q = transpose(normal({2, 40, 3, 8}, {1}), 1, 2);
  const Tensor y = scaled_dot_product_attention(q, q, q);
  EXPECT_TRUE(transpose(y, 1, 2).is_contiguous());
  const Tensor dense = contiguous(q);
  EXPECT_EQ(scaled_dot_product_attention(dense, dense, dense).to_vector<float>(), y.to_vector<float>());
}

TEST(Attention, NaNComesOut) {
  const Tensor q = Tensor::ones({1, 2, 4}), k = Tensor::ones({1, 3, 4}), v = Tensor::ones({1, 3, 4});
  fill_(select(k, 1, 0), NAN);
  for (const bool causal : {false, true})
    for (const double y : scaled_dot_product_attention(q, k, v, {.is_causal = causal}).to_vector<double>())
      EXPECT_TRUE(std::isnan(y)) << causal;
}

TEST(Attention, LargeScoresDoNotOverflow) {
  const Tensor q = Tensor::full({1, 2, 4}, 100), v = normal({1, 2, 4}, {2});
  const Tensor y = scaled_dot_product_attention(q, q, v);
  for (const double value : sub(y, mean(v, {1}, true)).to_vector<double>()) EXPECT_LE(std::fabs(value), 1e-6);
}

}  // namespace
}  // namespace trireme
