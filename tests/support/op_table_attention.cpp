// A row is a line, however long.
// clang-format off
// Op test table: attention.
#include <cmath>
#include <limits>

#include "tests/support/op_table.h"

namespace trireme::test {

namespace {

constexpr RandomKey kKey = random_key(4, 5, 6);

/// Computes attention of q and k (of equal width) and v. `mask(index)` is added to the scores.
Array attention_reference(const Arrays& in, const Shape& lead, const std::function<double(const std::vector<std::int64_t>&)>& mask, const AttentionOptions& o) {
  const auto last = [](const Array& a, int back) { return a.shape[a.shape.size() - back]; };
  const std::int64_t l = last(in[0], 2), s = last(in[1], 2), e = last(in[0], 1), ev = last(in[2], 1);
  Shape shape = lead, scores = lead;
  for (const std::int64_t n : {l, ev}) shape.push_back(n);
  for (const std::int64_t n : {l, s}) scores.push_back(n);
  const std::size_t rank = static_cast<std::size_t>(scores.size());
  std::int64_t sample = l * s;
  for (int d = 1; d < lead.size(); ++d) sample *= lead[d];
  Array y(shape);
  for (std::int64_t r = 0; r < lead.numel() * l; ++r) {
    std::vector<double> weight;
    double sum = 0;
    for (std::int64_t j = 0; j < s; ++j) {
      auto at = index_of(r * s + j, scores), left = at, right = at;
      double score = 0;
      for (std::int64_t c = 0; c < e; ++c) {
        left[rank - 1] = right[rank - 1] = c;
        right[rank - 2] = j;
        score += in[0].at(left) * in[1].at(right);
      }
      score = score * o.scale.value_or(1 / std::sqrt(static_cast<double>(e))) + mask(at);
      weight.push_back(o.is_causal && j > r % l ? 0 : std::exp(score));
      sum += weight.back();
      const std::int64_t place = r * s + j;
      const auto bits = philox(kKey, static_cast<std::uint64_t>(o.first_sample + place / sample), static_cast<std::uint64_t>(place % sample / 4));
      if (o.dropout_p > 0) weight.back() *= static_cast<double>(bits[static_cast<std::size_t>(place % sample % 4)]) < std::floor(o.dropout_p * 4294967296.0) ? 0 : 1 / (1 - o.dropout_p);
    }
    for (std::int64_t j = 0; j < s && sum > 0; ++j)
      for (std::int64_t c = 0; c < ev; ++c) {
        auto at = index_of(r * ev + c, shape);
        at[rank - 2] = j;
        y[r * ev + c] += weight[static_cast<std::size_t>(j)] / sum * in[2].at(at);
      }
  }
  return y;
}

double nothing(const std::vector<std::int64_t>&) { return 0; }

Tensor attend(const Tensors& in, AttentionOptions o) {
  o.key = kKey;
  return scaled_dot_product_attention(in[0], in[1], in[2], o);
}

/// Returns a case without a mask argument.
Case plain(const std::string& label, const Shape& q, const Shape& k, const Shape& v, const Shape& lead, const AttentionOptions& o) {
  return {label, {{q}, {k}, {v}}, [o](const Tensors& in) { return attend(in, o); }, [lead, o](const Arrays& in) { return attention_reference(in, lead, nothing, o); }};
}

/// Returns a case with a float mask argument.
Case added(Kind kind) {
  return {"added mask", {{{2, 2, 3, 4}}, {{2, 2, 5, 4}}, {{2, 2, 5, 2}}, {{2, 1, 3, 5}, -1, 1, kind}},
          [](const Tensors& in) { return attend(in, {.attn_mask = in[3], .dropout_p = 0.3, .first_sample = 3}); },
          [](const Arrays& in) { return attention_reference(in, {2, 2}, [&](const auto& at) { return in[3].at(at); }, {.dropout_p = 0.3, .first_sample = 3}); }};
}

/// Returns a case in which query 1 sees no key and the others some. The mask is bool, or has 0 and -infinity.
Case seen(DType dtype) {
  constexpr double kNever = -std::numeric_limits<double>::infinity();
  const auto sees = [](std::int64_t i, std::int64_t j) { return i != 1 && (i + 2 * j) % 3 != 0; };
  return {"mask of " + std::string(name_of(dtype)), {{{2, 3, 4}}, {{2, 5, 4}}, {{2, 5, 2}}}, [=](const Tensors& in) {
            std::vector<double> values;
            for (std::int64_t i = 0; i < 15; ++i) values.push_back(dtype == DType::kBool ? sees(i / 5, i % 5) : sees(i / 5, i % 5) ? 0 : kNever);
            return attend(in, {.attn_mask = beside(in, to(Tensor::from(values, {3, 5}), dtype))});
          },
          [=](const Arrays& in) { return attention_reference(in, {2}, [&](const auto& at) { return sees(at[1], at[2]) ? 0 : kNever; }, {}); }};
}

OpRow attention_row() {
  OpRow row{.declaration = "scaled_dot_product_attention(Tensor, Tensor, Tensor, AttentionOptions)"};
  row.cases = {plain("matrices", {2, 3, 4}, {2, 5, 4}, {2, 5, 2}, {2}, {}),
               plain("one matrix", {3, 4}, {5, 4}, {5, 2}, {}, {.scale = 0.7}),
               plain("heads", {2, 3, 2, 4}, {2, 3, 5, 4}, {2, 3, 5, 4}, {2, 3}, {.is_causal = true}),
               plain("fewer keys than queries", {1, 2, 6, 3}, {1, 2, 4, 3}, {1, 2, 4, 3}, {1, 2}, {.is_causal = true}),
               plain("shared keys", {2, 3, 2, 4}, {3, 5, 4}, {2, 1, 5, 4}, {2, 3}, {}),
               plain("dropout", {2, 3, 3, 4}, {2, 3, 5, 4}, {2, 3, 5, 2}, {2, 3}, {.dropout_p = 0.4, .first_sample = 7}),
               plain("dropout, one matrix", {3, 4}, {5, 4}, {5, 2}, {}, {.dropout_p = 0.4, .is_causal = true}),
               plain("all dropped", {1, 3, 4}, {1, 5, 4}, {1, 5, 2}, {1}, {.dropout_p = 1}),
               plain("ones", {1, 1, 1, 1}, {1, 1, 1, 1}, {1, 1, 1, 1}, {1, 1}, {}),
               plain("no samples", {0, 3, 4}, {0, 5, 4}, {0, 5, 2}, {0}, {.dropout_p = 0.5}),
               plain("no queries", {2, 0, 4}, {2, 5, 4}, {2, 5, 2}, {2}, {}),
               plain("no keys", {2, 3, 4}, {2, 0, 4}, {2, 0, 2}, {2}, {}),
               plain("no values", {2, 3, 4}, {2, 5, 4}, {2, 5, 0}, {2}, {}),
               added(Kind::kValue), added(Kind::kConstant), seen(DType::kBool), seen(DType::kFloat32)};
  const auto call = [](const Shape& q, const Shape& k, const Shape& v, const AttentionOptions& o) { return [=] { scaled_dot_product_attention(Tensor::zeros(q), Tensor::zeros(k), Tensor::zeros(v), o); }; };
  const std::string name = row.name() + ":";
  row.bad = {{call({2, 3, 4}, {2, 5, 3}, {2, 5, 2}, {}), {name, "(2, 3, 4)", "(2, 5, 3)"}},
             {call({2, 3, 4}, {2, 5, 4}, {2, 6, 2}, {}), {name, "(2, 5, 4)", "(2, 6, 2)"}},
             {call({2, 3, 4}, {3, 5, 4}, {3, 5, 2}, {}), {name, "(2)", "(3)"}},
             {call({4}, {5, 4}, {5, 4}, {}), {name, "(4)"}},
             {call({3, 0}, {5, 0}, {5, 4}, {}), {name, "(3, 0)"}},
             {call({3, 4}, {5, 4}, {5, 4}, {.dropout_p = 2}), {name, "dropout_p 2"}},
             {call({3, 4}, {5, 4}, {5, 4}, {.attn_mask = Tensor::zeros({3, 5}), .is_causal = true}), {name, "is_causal", "(3, 5)"}},
             {call({3, 4}, {5, 4}, {5, 4}, {.attn_mask = Tensor::zeros({3, 4})}), {name, "(3, 4)", "(3, 5)"}},
             {call({3, 4}, {5, 4}, {5, 4}, {.attn_mask = Tensor::zeros({2, 3, 5})}), {name, "(2, 3, 5)", "(3, 5)"}},
             {call({3, 4}, {5, 4}, {5, 4}, {.attn_mask = Tensor::zeros({3, 5}, DType::kInt64)}), {name, "attn_mask", "int64"}}};
  return row;
}

}  // namespace

std::vector<OpRow> attention_rows() { return {attention_row()}; }

}  // namespace trireme::test
