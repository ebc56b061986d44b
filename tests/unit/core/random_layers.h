// The steps of random programs that run layers: convolution, pooling, attention and norms, with references in
// plain loops.
#pragma once

#include <array>

#include "tests/unit/core/random_graph.h"

namespace trireme::test {

/// The positions of sliding windows in one of the two dimensions of an image.
struct Sliding {
  std::int64_t kernel = 1, stride = 1, padding = 0, dilation = 1;
  std::int64_t reach() const { return (kernel - 1) * dilation + 1; }
  std::int64_t count(std::int64_t size) const { return (size + 2 * padding - reach()) / stride + 1; }
  /// Returns the position in the input of element k of window i.
  std::int64_t at(std::int64_t i, std::int64_t k) const { return i * stride - padding + k * dilation; }
};
using Slidings = std::array<Sliding, 2>;

/// Returns a pixel of images (N,C,H,W), or zero outside of the image.
inline Dual pixel(const Duals& x, std::int64_t n, std::int64_t c, std::int64_t h, std::int64_t w) {
  const bool inside = h >= 0 && h < x.shape[2] && w >= 0 && w < x.shape[3];
  return inside ? x.at({n, c, h, w}) : Dual();
}

inline Duals convolved(const Duals& x, const Duals& w, const Duals& b, const Slidings& s,
                       std::int64_t groups) {
  const std::int64_t out = w.shape[0], in = w.shape[1];
  return build({x.shape[0], out, s[0].count(x.shape[2]), s[1].count(x.shape[3])}, [&](const Index& i) {
    Dual total = b.values.empty() ? Dual() : b.at({i[1]});
    const std::int64_t first = i[1] / (out / groups) * in;
    for (std::int64_t c = 0; c < in; ++c)
      for (std::int64_t p = 0; p < s[0].kernel; ++p)
        for (std::int64_t q = 0; q < s[1].kernel; ++q)
          total =
              total + pixel(x, i[0], first + c, s[0].at(i[2], p), s[1].at(i[3], q)) * w.at({i[1], c, p, q});
    return total;
  });
}

/// Returns random options of a window. Both dimensions of an image use them, with different kernel sizes.
inline Sliding random_window(Graph& g) { return {1 + g.pick(3), 1 + g.pick(3), g.pick(3), 1 + g.pick(2)}; }

inline Node random_bias(Graph& g, std::int64_t channels) {
  return g.coin() ? g.leaf({channels}) : Node{Tensor(), Duals()};
}

/// Runs conv2d or conv1d. The reference of conv1d uses an image and a kernel of height 1.
inline void run_convolution(Graph& g) {
  const bool line = g.coin();
  const Node x = g.shaped(line ? Shape{2, 4, 8} : Shape{2, 4, 5, 5});
  const Sliding across = random_window(g);
  Sliding down = across;
  down.kernel = 1 + g.pick(3);
  if (line) down = {};
  Duals image = x.reference;
  if (line) image.shape = {x.tensor.size(0), x.tensor.size(1), 1, x.tensor.size(2)};
  if (down.count(image.shape[2]) < 1 || across.count(image.shape[3]) < 1) return;
  if (down.reach() > image.shape[2] + 2 * down.padding) return;
  if (across.reach() > image.shape[3] + 2 * across.padding) return;
  const std::int64_t groups = g.divisor(image.shape[1], 4), out = groups * (1 + g.pick(2));
  const Shape filter{out, image.shape[1] / groups, down.kernel, across.kernel};
  Node w = g.leaf(line ? Shape{filter[0], filter[1], filter[3]} : filter);
  w.reference.shape = filter;
  const Node b = random_bias(g, out);
  Duals y = convolved(image, w.reference, b.reference, {down, across}, groups);
  if (line) y.shape = {y.shape[0], out, y.shape[3]};
  const Conv2dOptions o{
      .stride = across.stride, .padding = across.padding, .groups = groups, .dilation = across.dilation};
  g.result(line ? "conv1d" : "conv2d",
           line ? conv1d(x.tensor, w.tensor, b.tensor, o) : conv2d(x.tensor, w.tensor, b.tensor, o), y);
}

inline void run_transposed_convolution(Graph& g) {
  const Node x = g.shaped({2, 4, 3, 3});
  Slidings s{random_window(g), {}};
  s[1] = s[0];
  s[1].kernel = 1 + g.pick(3);
  const std::int64_t more = g.pick(std::max(s[0].stride, s[0].dilation));
  const std::int64_t channels = x.tensor.size(1), groups = g.divisor(channels, 4), out = 1 + g.pick(2);
  Shape shape{x.tensor.size(0), groups * out, 0, 0};
  for (const int d : {2, 3}) {
    const Sliding& one = s[static_cast<std::size_t>(d - 2)];
    shape[d] = (x.tensor.size(d) - 1) * one.stride - 2 * one.padding + one.reach() + more;
    if (shape[d] < 1) return;
  }
  const Node w = g.leaf({channels, out, s[0].kernel, s[1].kernel}), b = random_bias(g, groups * out);
  // Each element of x adds the filter, multiplied by the element, around its position.
  const Duals y = build(shape, [&](const Index& i) {
    Dual total = b.reference.values.empty() ? Dual() : b.reference.at({i[1]});
    const std::int64_t first = i[1] / out * (channels / groups);
    build({channels / groups, x.tensor.size(2), x.tensor.size(3), s[0].kernel, s[1].kernel},
          [&](const Index& j) {
            if (s[0].at(j[1], j[3]) == i[2] && s[1].at(j[2], j[4]) == i[3])
              total = total + x.reference.at({i[0], first + j[0], j[1], j[2]}) *
                                  w.reference.at({first + j[0], i[1] % out, j[3], j[4]});
            return Dual();
          });
    return total;
  });
  g.result("conv_transpose2d",
           conv_transpose2d(x.tensor, w.tensor, b.tensor,
                            {.stride = s[0].stride,
                             .padding = s[0].padding,
                             .output_padding = more,
                             .groups = groups,
                             .dilation = s[0].dilation}),
           y);
}

/// Returns the largest number of a lane, and its distance from the second largest.
inline std::pair<Dual, double> largest(const Lane& lane) {
  Dual first{-1e9, 0}, second{-2e9, 0};
  for (const Dual x : lane) {
    if (x.v > first.v)
      second = std::exchange(first, x);
    else if (x.v > second.v)
      second = x;
  }
  return {first, first.v - second.v};
}

/// Returns the rows (dim 2) or columns (dim 3) of window i.
using Windows = std::function<std::vector<std::int64_t>(int dim, std::int64_t i)>;
inline Duals pooled(const Duals& x, std::int64_t height, std::int64_t width, const Windows& windows,
                    const std::function<Dual(const Lane&)>& fn) {
  return build({x.shape[0], x.shape[1], height, width}, [&](const Index& i) {
    Lane lane;
    for (const std::int64_t h : windows(2, i[2]))
      for (const std::int64_t w : windows(3, i[3])) lane.push_back(x.at({i[0], i[1], h, w}));
    return fn(lane);
  });
}

inline void run_adaptive_pool(Graph& g, const Node& x, bool maximum) {
  const std::int64_t height = 1 + g.pick(4), width = 1 + g.pick(4);
  bool apart = true;
  const Duals y = pooled(
      x.reference, height, width,
      [&](int d, std::int64_t i) {
        const std::int64_t size = x.tensor.size(d), count = d == 2 ? height : width;
        std::vector<std::int64_t> all;
        for (std::int64_t at = i * size / count; at * count < (i + 1) * size; ++at) all.push_back(at);
        return all;
      },
      [&](const Lane& lane) {
        if (!maximum) return sum(lane) / Dual{static_cast<double>(lane.size()), 0};
        const auto [top, gap] = largest(lane);
        apart = apart && gap > g.kink();
        return top;
      });
  if (!apart) return;
  if (maximum)
    g.result("adaptive_max_pool2d", adaptive_max_pool2d(x.tensor, height, width), y);
  else
    g.result("adaptive_avg_pool2d", adaptive_avg_pool2d(x.tensor, height, width), y);
}

inline void run_pool(Graph& g) {
  const Node x = g.shaped({2, 3, 6, 6});
  const bool maximum = g.coin();
  if (g.pick(3) == 0) return run_adaptive_pool(g, x, maximum);
  Sliding s{1 + g.pick(3), 1 + g.pick(3), 0, maximum ? 1 + g.pick(2) : 1};
  s.padding = g.pick(s.kernel / 2 + 1);
  const bool ceil_mode = maximum && g.coin();
  Shape counts;
  for (const int d : {2, 3}) {
    const std::int64_t size = x.tensor.size(d);
    if (s.reach() > size + 2 * s.padding || s.dilation > size) return;
    std::int64_t count = s.count(size);
    const bool rest = (size + 2 * s.padding - s.reach()) % s.stride != 0;
    if (ceil_mode && rest && count * s.stride < size + s.padding) ++count;  // the last window is cut off
    counts.push_back(count);
  }
  bool apart = true;
  const Duals y = pooled(
      x.reference, counts[0], counts[1],
      [&](int d, std::int64_t i) {
        std::vector<std::int64_t> all;
        for (std::int64_t k = 0; k < s.kernel; ++k)
          if (s.at(i, k) >= 0 && s.at(i, k) < x.tensor.size(d)) all.push_back(s.at(i, k));
        return all;
      },
      [&](const Lane& lane) {
        if (!maximum) return sum(lane) / Dual{static_cast<double>(s.kernel * s.kernel), 0};
        const auto [top, gap] = largest(lane);
        apart = apart && gap > g.kink();
        return top;
      });
  if (!apart) return;
  const PoolOptions o{s.kernel, s.stride, s.padding, s.dilation, ceil_mode};
  g.result(maximum ? "max_pool2d" : "avg_pool2d", maximum ? max_pool2d(x.tensor, o) : avg_pool2d(x.tensor, o),
           y);
}

/// Returns the attention weights of one query: softmax over the scores of seen keys, and 0 for other keys.
inline Lane attention_weights(const Lane& scores, const std::vector<bool>& seen) {
  double top = -1e9;
  for (std::size_t s = 0; s < scores.size(); ++s)
    if (seen[s]) top = std::max(top, scores[s].v);
  Lane weights(scores.size());
  for (std::size_t s = 0; s < scores.size(); ++s)
    if (seen[s]) weights[s] = exp(scores[s] - Dual{top, 0});
  const Dual total = sum(weights);
  if (total.v > 0)
    for (Dual& w : weights) w = w / total;
  return weights;
}

/// Runs attention on (B,L,E) or (L,E). Keys and values may be shared by a batch.
inline void run_attention(Graph& g) {
  const Node q = g.shaped(g.coin() ? Shape{3, 4, 4} : Shape{4, 4});
  const std::int64_t queries = q.tensor.size(-2), width = q.tensor.size(-1), keys = 1 + g.pick(4),
                     out = 1 + g.pick(3);
  const Shape batch = q.tensor.dim() == 3 && g.coin() ? Shape{q.tensor.size(0)} : Shape();
  const auto of = [&](std::int64_t size) {
    Shape shape = batch;
    shape.push_back(keys);
    shape.push_back(size);
    return g.leaf(shape);
  };
  const Node k = of(width), v = of(out);
  AttentionOptions o;
  std::vector<bool> seen(static_cast<std::size_t>(queries * keys), true);
  Node added{Tensor(), build({}, [](const Index&) { return Dual(); })};
  switch (g.pick(4)) {
    case 0:
      o.is_causal = true;
      for (std::int64_t i = 0; i < queries * keys; ++i)
        seen[static_cast<std::size_t>(i)] = i % keys <= i / keys;
      break;
    case 1:
      for (std::size_t i = 0; i < seen.size(); ++i) seen[i] = g.coin();
      o.attn_mask = to(Tensor::from(std::vector<std::int64_t>(seen.begin(), seen.end()), {queries, keys}),
                       DType::kBool);
      break;
    case 2:
      added = g.leaf(g.coin() ? Shape{queries, keys} : Shape{1, keys});
      o.attn_mask = added.tensor;
  }
  if (g.coin()) o.scale = 0.3;
  const Dual scale{o.scale.value_or(1 / std::sqrt(static_cast<double>(width))), 0};
  Shape shape = q.tensor.shape();
  shape[shape.size() - 1] = out;
  const Duals y = build(shape, [&](const Index& i) {
    const std::int64_t row = i[i.size() - 2], b = i.size() == 3 ? i[0] : 0;
    Lane scores(static_cast<std::size_t>(keys));
    for (std::int64_t s = 0; s < keys; ++s) {
      Dual& score = scores[static_cast<std::size_t>(s)];
      for (std::int64_t e = 0; e < width; ++e)
        score = score +
                q.reference.at(i.size() == 3 ? Index{b, row, e} : Index{row, e}) * k.reference.at({b, s, e});
      score = scale * score + added.reference.at({row, s});
    }
    const auto first = seen.begin() + row * keys;
    const Lane weights = attention_weights(scores, std::vector<bool>(first, first + keys));
    Dual total;
    for (std::int64_t s = 0; s < keys; ++s)
      total = total + weights[static_cast<std::size_t>(s)] * v.reference.at({b, s, i.back()});
    return total;
  });
  g.result("attention", scaled_dot_product_attention(q.tensor, k.tensor, v.tensor, o), y);
}

/// Returns the mean and the biased variance of a lane.
inline std::pair<Dual, Dual> moments(const Lane& lane) {
  const Dual count{static_cast<double>(lane.size()), 0}, mean = sum(lane) / count;
  Dual squares;
  for (const Dual x : lane) squares = squares + (x - mean) * (x - mean);
  return {mean, squares / count};
}

inline void run_batch_norm(Graph& g) {
  const Node x = g.shaped({3, 3, 4, 4});
  const std::int64_t channels = x.tensor.size(1);
  const Node gamma = g.leaf({channels}), beta = g.leaf({channels});
  const Node residual = g.coin() ? g.leaf(x.tensor.shape()) : Node{Tensor(), Duals()};
  std::vector<std::pair<Dual, Dual>> measured;
  for (std::int64_t c = 0; c < channels; ++c) {
    Lane lane;
    build({x.tensor.size(0), x.tensor.size(2), x.tensor.size(3)}, [&](const Index& i) {
      lane.push_back(x.reference.at({i[0], c, i[1], i[2]}));
      return Dual();
    });
    measured.push_back(moments(lane));
  }
  const double eps = 0.1;  // large, because images may be constant
  BatchNormOptions o{.eps = eps, .relu = g.coin()};
  BatchStatistics fixed;
  if (g.coin()) {
    for (auto& [mean, variance] : measured) mean = {g.number(-1, 1), 0}, variance = {g.number(0.5, 2), 0};
    std::vector<double> means, variances;
    for (const auto& [mean, variance] : measured) means.push_back(mean.v), variances.push_back(variance.v);
    fixed = {to_dtype(Tensor::from(means, {channels}), x.tensor.dtype()),
             to_dtype(Tensor::from(variances, {channels}), x.tensor.dtype())};
    o.fixed = &fixed;
  }
  Duals y = build(x.tensor.shape(), [&](const Index& i) {
    const auto& [mean, variance] = measured[static_cast<std::size_t>(i[1])];
    const Dual normal = (x.reference.at(i) - mean) / sqrt(variance + Dual{eps, 0});
    const Dual more = residual.tensor.defined() ? residual.reference.at(i) : Dual();
    return normal * gamma.reference.at({i[1]}) + beta.reference.at({i[1]}) + more;
  });
  if (o.relu && !suits(g, y, -1e9, 1e9, {0})) return;
  for (Dual& one : y.values)
    if (o.relu && one.v < 0) one = {};
  g.result("batch_norm", batch_norm(x.tensor, gamma.tensor, beta.tensor, residual.tensor, o), y);
}

/// Runs group_norm, or rms_norm over the last dimension.
inline void run_group_norm(Graph& g) {
  const Node x = g.shaped({2, 4, 4});
  const bool rms = g.coin();
  const std::int64_t channels = x.tensor.size(1), groups = g.divisor(channels, 4), width = x.tensor.size(2);
  const Node gamma = g.leaf({rms ? width : channels});
  const Dual eps{0.1, 0};
  if (rms) {
    return g.result("rms_norm", rms_norm(x.tensor, gamma.tensor, eps.v),
                    map_lanes(x.reference, 2, [&](Lane l) {
                      Dual squares;
                      for (const Dual v : l) squares = squares + v * v;
                      const Dual scale = sqrt(squares / Dual{static_cast<double>(width), 0} + eps);
                      for (std::size_t i = 0; i < l.size(); ++i)
                        l[i] = l[i] / scale * gamma.reference.values[i];
                      return l;
                    }));
  }
  const Node beta = g.leaf({channels});
  Duals rows{{x.tensor.size(0) * groups, channels / groups * width}, x.reference.values};
  rows = map_lanes(rows, 1, [&](Lane l) {
    const auto [mean, variance] = moments(l);
    for (Dual& v : l) v = (v - mean) / sqrt(variance + eps);
    return l;
  });
  rows.shape = x.tensor.shape();
  g.result("group_norm", group_norm(x.tensor, groups, gamma.tensor, beta.tensor, eps.v),
           build(rows.shape, [&](const Index& i) {
             return rows.at(i) * gamma.reference.at({i[1]}) + beta.reference.at({i[1]});
           }));
}

}  // namespace trireme::test
