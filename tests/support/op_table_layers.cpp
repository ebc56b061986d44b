// A row is a line, however long.
// clang-format off
// Op test table: matrix products, convolution, pooling and batch normalization.
#include <cmath>
#include <limits>

#include "tests/support/op_table.h"

namespace trireme::test {

namespace {

OpRow matmul_row() {
  OpRow row{.declaration = "matmul(Tensor, Tensor)"};
  const auto reference = [](const Arrays& in) {
    const int d = in[0].shape.size();
    const std::int64_t batch = d == 3 ? in[0].shape[0] : 1, m = in[0].shape[d - 2], k = in[0].shape[d - 1], n = in[1].shape[d - 1];
    Array y(d == 3 ? Shape{batch, m, n} : Shape{m, n});
    for (std::int64_t b = 0; b < batch; ++b)
      for (std::int64_t i = 0; i < m; ++i)
        for (std::int64_t j = 0; j < n; ++j)
          for (std::int64_t l = 0; l < k; ++l) y[(b * m + i) * n + j] += in[0][(b * m + i) * k + l] * in[1][(b * k + l) * n + j];
    return y;
  };
  for (const auto& [a, b] : {std::pair{Shape{3, 4}, Shape{4, 2}}, {Shape{2, 3, 4}, Shape{2, 4, 2}}, {Shape{1, 3}, Shape{3, 1}},
                             {Shape{3, 1}, Shape{1, 3}}, {Shape{0, 3}, Shape{3, 2}}, {Shape{2, 0}, Shape{0, 3}},
                             {Shape{0, 2, 3}, Shape{0, 3, 2}}, {Shape{2, 2, 0}, Shape{2, 0, 2}}})
    row.cases.push_back({a.to_string() + " " + b.to_string(), {{a}, {b}}, [](const Tensors& in) { return matmul(in[0], in[1]); }, reference});
  row.bad.push_back({[] { matmul(Tensor::zeros({2, 3}), Tensor::zeros({4, 3})); }, {"matmul:", "(2, 3)", "(4, 3)"}});
  row.bad.push_back({[] { matmul(Tensor::zeros({3}), Tensor::zeros({3})); }, {"matmul:", "(3)"}});
  row.bad.push_back({[] { matmul(Tensor::zeros({2, 3}), Tensor::zeros({3, 2}, DType::kFloat64)); }, {"matmul:", "float32", "float64"}});
  return row;
}

OpRow linear_row() {
  OpRow row{.declaration = "linear(Tensor, Tensor, Tensor)"};
  const auto reference = [](const Arrays& in) {
    const std::int64_t inner = in[1].shape[1], outer = in[1].shape[0];
    Shape shape = in[0].shape;
    shape[shape.size() - 1] = outer;
    Array y(shape);
    for (std::int64_t i = 0; i < y.size(); ++i) {
      if (in.size() > 2) y[i] = in[2][i % outer];
      for (std::int64_t k = 0; k < inner; ++k) y[i] += in[0][i / outer * inner + k] * in[1][i % outer * inner + k];
    }
    return y;
  };
  for (const auto& [x, w] : {std::pair{Shape{3, 4}, Shape{2, 4}}, {Shape{2, 3, 4}, Shape{2, 4}}, {Shape{4}, Shape{2, 4}},
                             {Shape{0, 4}, Shape{2, 4}}, {Shape{2, 3, 0}, Shape{2, 0}}, {Shape{0, 3, 4}, Shape{1, 4}}}) {
    row.cases.push_back({x.to_string() + " bias", {{x}, {w}, {{w[0]}, -1, 1, Kind::kOptional}},
                         [](const Tensors& in) { return linear(in[0], in[1], in[2]); }, reference});
    row.cases.push_back({x.to_string(), {{x}, {w}}, [](const Tensors& in) { return linear(in[0], in[1]); }, reference});
  }
  row.bad.push_back({[] { linear(Tensor::zeros({2, 3}), Tensor::zeros({4, 2})); }, {"linear:", "(2, 3)", "(4, 2)"}});
  row.bad.push_back({[] { linear(Tensor::zeros({2, 3}), Tensor::zeros({4, 3}), Tensor::zeros({3})); }, {"linear:", "(3)", "(4, 3)"}});
  row.bad.push_back({[] { linear(Tensor::zeros({2, 3}), Tensor::zeros({4, 3}), Tensor::zeros({4}, DType::kFloat64)); },
                     {"linear:", "float32", "float64"}});
  return row;
}

/// Calls fn(y index, x index or -1 in the padding, ky, kx) for every place of a window over (n, c) planes.
template <class Fn>
void for_each_place(std::int64_t h, std::int64_t w, std::int64_t kh, std::int64_t kw, std::int64_t stride, std::int64_t padding, const Fn& fn) {
  const std::int64_t oh = (h + 2 * padding - kh) / stride + 1, ow = (w + 2 * padding - kw) / stride + 1;
  for (std::int64_t p = 0; p < oh * ow; ++p)
    for (std::int64_t q = 0; q < kh * kw; ++q) {
      const std::int64_t iy = p / ow * stride - padding + q / kw, ix = p % ow * stride - padding + q % kw;
      const bool inside = iy >= 0 && iy < h && ix >= 0 && ix < w;
      fn(p, inside ? iy * w + ix : -1, q);
    }
}

Shape windowed(const Shape& x, std::int64_t channels, std::int64_t kh, std::int64_t kw, std::int64_t stride, std::int64_t padding) {
  return {x[0], channels, (x[2] + 2 * padding - kh) / stride + 1, (x[3] + 2 * padding - kw) / stride + 1};
}

Array conv_reference(const Arrays& in, const Conv2dOptions& o) {
  const Array &x = in[0], &w = in[1];
  const std::int64_t kh = w.shape[2], kw = w.shape[3], out = w.shape[0], depth = w.shape[1], plane = x.shape[2] * x.shape[3];
  Array y(windowed(x.shape, out, kh, kw, o.stride, o.padding));
  const std::int64_t y_plane = y.shape[2] * y.shape[3];
  for (std::int64_t i = 0; i < y.size() && in.size() > 2; ++i) y[i] = in[2][i / y_plane % out];
  for (std::int64_t n = 0; n < x.shape[0]; ++n)
    for (std::int64_t c = 0; c < out; ++c)
      for (std::int64_t d = 0; d < depth; ++d) {
        const std::int64_t channel = c / (out / o.groups) * depth + d;
        for_each_place(x.shape[2], x.shape[3], kh, kw, o.stride, o.padding, [&](auto p, auto from, auto q) {
          if (from >= 0)
            y[(n * out + c) * y_plane + p] += x[(n * x.shape[1] + channel) * plane + from] * w[(c * depth + d) * kh * kw + q];
        });
      }
  return y;
}

OpRow conv_row() {
  OpRow row{.declaration = "conv2d(Tensor, Tensor, Tensor, Conv2dOptions)", .second = Second::kThrows};
  struct Shapes {
    Shape x, w;
    Conv2dOptions o;
  };
  for (const Shapes& s :
       {Shapes{{2, 3, 5, 5}, {4, 3, 3, 3}, {1, 1, 1}}, Shapes{{2, 3, 6, 5}, {2, 3, 3, 2}, {2, 0, 1}}, Shapes{{1, 4, 4, 4}, {4, 2, 3, 3}, {1, 1, 2}},
        Shapes{{2, 4, 4, 4}, {4, 1, 3, 3}, {2, 1, 4}}, Shapes{{2, 1, 6, 6}, {3, 1, 3, 3}, {1, 1, 1}}, Shapes{{2, 5, 3, 3}, {3, 5, 1, 1}, {1, 0, 1}},
        Shapes{{2, 3, 5, 5}, {4, 3, 1, 1}, {2, 0, 1}}, Shapes{{0, 3, 5, 5}, {4, 3, 3, 3}, {1, 1, 1}}, Shapes{{2, 2, 1, 1}, {2, 2, 1, 1}, {1, 0, 1}},
        Shapes{{1, 16, 5, 5}, {17, 16, 3, 3}, {1, 1, 1}}, Shapes{{1, 2, 3, 3}, {2, 2, 5, 5}, {1, 2, 1}}, Shapes{{2, 3, 4, 4}, {0, 3, 3, 3}, {1, 1, 1}}}) {
    const std::string label = s.x.to_string() + " " + s.w.to_string();
    row.cases.push_back({label + " bias", {{s.x}, {s.w}, {{s.w[0]}, -1, 1, Kind::kOptional}},
                         [s](const Tensors& in) { return conv2d(in[0], in[1], in[2], s.o); },
                         [s](const Arrays& in) { return conv_reference(in, s.o); }});
    row.cases.push_back({label, {{s.x}, {s.w}}, [s](const Tensors& in) { return conv2d(in[0], in[1], {}, s.o); },
                         [s](const Arrays& in) { return conv_reference(in, s.o); }});
  }
  const auto image = [] { return Tensor::zeros({1, 3, 4, 4}); };
  row.bad.push_back({[image] { conv2d(image(), Tensor::zeros({2, 4, 3, 3})); }, {"conv2d:", "(1, 3, 4, 4)", "(2, 4, 3, 3)"}});
  row.bad.push_back({[image] { conv2d(Tensor::zeros({1, 3, 4, 0}), Tensor::zeros({2, 3, 1, 1}), {}, {.padding = 1}); }, {"conv2d:", "(1, 3, 4, 0)"}});
  row.bad.push_back({[image] { conv2d(image(), Tensor::zeros({2, 3})); }, {"conv2d:", "(2, 3)", "4 dimensions"}});
  row.bad.push_back({[image] { conv2d(image(), Tensor::zeros({2, 3, 5, 5})); }, {"conv2d:", "5 x 5", "4 x 4"}});
  row.bad.push_back({[image] { conv2d(image(), Tensor::zeros({2, 3, 3, 3}), Tensor::zeros({3})); }, {"conv2d:", "(3)", "(2, 3, 3, 3)"}});
  row.bad.push_back({[image] { conv2d(image(), Tensor::zeros({2, 3, 3, 3}), {}, {.stride = 0}); }, {"conv2d:", "stride 0"}});
  row.bad.push_back({[image] { conv2d(image(), Tensor::zeros({2, 1, 3, 3}), {}, {.groups = 3}); }, {"conv2d:", "groups 3"}});
  row.bad.push_back({[image] { conv2d(image(), Tensor::zeros({2, 3, 3, 3}, DType::kFloat64)); }, {"conv2d:", "float32", "float64"}});
  return row;
}

OpRow pool_row(const std::string& name, Tensor (*op)(const Tensor&, const PoolOptions&), bool is_max) {
  OpRow row{.declaration = name + "(Tensor, PoolOptions)", .second = Second::kThrows};
  for (const auto& [shape, o] : {std::pair{Shape{2, 3, 4, 4}, PoolOptions{}}, {Shape{2, 3, 5, 5}, PoolOptions{3, 2, 1}},
                                 {Shape{1, 17, 4, 5}, PoolOptions{2, 1, 0}}, {Shape{0, 3, 4, 4}, PoolOptions{}},
                                 {Shape{2, 2, 3, 3}, PoolOptions{3, 0, 0}}, {Shape{1, 0, 4, 4}, PoolOptions{}}})
    row.cases.push_back({shape.to_string(), {{shape}}, [op, o = o](const Tensors& in) { return op(in[0], o); }, [is_max, o = o](const Arrays& in) {
                           const Array& x = in[0];
                           const std::int64_t stride = o.stride ? o.stride : o.kernel, plane = x.shape[2] * x.shape[3];
                           Array y(windowed(x.shape, x.shape[1], o.kernel, o.kernel, stride, o.padding),
                                   is_max ? -std::numeric_limits<double>::infinity() : 0);
                           const std::int64_t y_plane = y.shape[2] * y.shape[3];
                           for (std::int64_t c = 0; c < x.shape[0] * x.shape[1]; ++c)
                             for_each_place(x.shape[2], x.shape[3], o.kernel, o.kernel, stride, o.padding, [&](auto p, auto from, auto) {
                               if (from < 0) return;
                               double& v = y[c * y_plane + p];
                               v = is_max ? std::fmax(v, x[c * plane + from])
                                          : v + x[c * plane + from] / static_cast<double>(o.kernel * o.kernel);
                             });
                           return y;
                         }});
  row.bad.push_back({[op] { op(Tensor::zeros({2, 3}), {}); }, {name + ":", "(2, 3)", "4 dimensions"}});
  row.bad.push_back({[op] { op(Tensor::zeros({1, 1, 2, 2}), {3, 1, 0}); }, {name + ":", "3 x 3", "2 x 2"}});
  row.bad.push_back({[op] { op(Tensor::zeros({1, 3, 0, 4}), {2, 1, 1}); }, {name + ":", "(1, 3, 0, 4)", "no pixels"}});
  row.bad.push_back({[op] { op(Tensor::zeros({1, 1, 4, 4}), {2, 1, 2}); }, {name + ":", "padding 2", "kernel 2"}});
  row.bad.push_back({[op] { op(Tensor::zeros({1, 1, 4, 4}), {2, -1, 0}); }, {name + ":", "stride -1"}});
  return row;
}

OpRow global_pool_row() {
  OpRow row{.declaration = "global_avg_pool2d(Tensor)"};
  for (const Shape& shape : {Shape{2, 3, 4, 5}, Shape{0, 3, 2, 2}, Shape{2, 3, 1, 1}})
    row.cases.push_back({shape.to_string(), {{shape}}, [](const Tensors& in) { return global_avg_pool2d(in[0]); }, [](const Arrays& in) {
                           Array y({in[0].shape[0], in[0].shape[1]});
                           const std::int64_t plane = in[0].shape[2] * in[0].shape[3];
                           for (std::int64_t i = 0; i < in[0].size(); ++i) y[i / plane] += in[0][i] / static_cast<double>(plane);
                           return y;
                         }});
  row.bad.push_back({[] { global_avg_pool2d(Tensor::zeros({2, 3})); }, {"global_avg_pool2d:", "(2, 3)"}});
  return row;
}

/// Inputs: x, gamma, beta, then the residual if `residual`, then mean and variance if `fixed`.
struct Norm {
  Shape shape;
  bool relu, residual, fixed;
};

Array norm_reference(const Arrays& in, const Norm& norm) {
  const Array& x = in[0];
  const std::int64_t channels = x.shape[1], plane = x.shape[2] * x.shape[3];
  Array y(x.shape);
  for (std::int64_t c = 0; c < channels; ++c) {
    double mean = 0, variance = 0, count = 0;
    const auto each = [&](auto fn) {
      for (std::int64_t i = 0; i < x.size(); ++i)
        if (i / plane % channels == c) fn(i);
    };
    each([&](auto i) { mean += x[i], ++count; });
    mean /= count;
    each([&](auto i) { variance += (x[i] - mean) * (x[i] - mean) / count; });
    if (norm.fixed) mean = in[in.size() - 2][c], variance = in[in.size() - 1][c];
    each([&](auto i) {
      const double v = in[1][c] * (x[i] - mean) / std::sqrt(variance + 1e-5) + in[2][c] + (norm.residual ? in[3][i] : 0);
      y[i] = norm.relu ? std::fmax(v, 0) : v;
    });
  }
  return y;
}

Case norm_case(const Norm& norm) {
  const Shape channels{norm.shape[1]};
  Case one{"batch norm", {{norm.shape, -2, 3}, {channels, 0.5, 1.5}, {channels}}, nullptr, [norm](const Arrays& in) { return norm_reference(in, norm); }};
  if (norm.residual) one.inputs.push_back({norm.shape, -1, 1, Kind::kOptional});
  if (norm.fixed) {
    one.inputs.push_back({channels, -1, 1, Kind::kConstant});
    one.inputs.push_back({channels, 0.5, 2, Kind::kConstant});
  }
  one.label += norm.relu ? " relu" : "";
  one.label += norm.residual ? " residual" : "";
  one.label += norm.fixed ? " fixed" : "";
  one.call = [norm](const Tensors& in) {
    const BatchStatistics statistics = norm.fixed ? BatchStatistics{in[in.size() - 2], in[in.size() - 1]} : BatchStatistics{};
    return batch_norm(in[0], in[1], in[2], norm.residual ? in[3] : Tensor(), {.relu = norm.relu, .fixed = norm.fixed ? &statistics : nullptr});
  };
  return one;
}

OpRow norm_row() {
  OpRow row{.declaration = "batch_norm(Tensor, Tensor, Tensor, Tensor, BatchNormOptions)", .second = Second::kThrows, .float32_tolerance = 1e-4};
  for (const bool relu : {false, true})
    for (const bool residual : {false, true})
      for (const Shape& shape : {Shape{3, 2, 2, 3}, Shape{2, 17, 2, 2}, Shape{4, 1, 1, 1}}) row.cases.push_back(norm_case({shape, relu, residual, false}));
  const auto vector = [](std::int64_t n) { return Tensor::ones({n}); };
  const auto image = [] { return Tensor::zeros({2, 3, 2, 2}); };
  row.bad.push_back({[=] { batch_norm(image(), vector(2), vector(3), {}, {}); }, {"batch_norm:", "gamma", "(2)", "(2, 3, 2, 2)"}});
  row.bad.push_back({[=] { batch_norm(image(), vector(3), vector(4), {}, {}); }, {"batch_norm:", "beta", "(4)", "(2, 3, 2, 2)"}});
  row.bad.push_back({[=] { batch_norm(image(), vector(3), vector(3), Tensor::zeros({2, 3, 2, 1}), {}); }, {"batch_norm:", "(2, 3, 2, 1)", "(2, 3, 2, 2)"}});
  row.bad.push_back({[=] { batch_norm(Tensor::zeros({0, 3, 2, 2}), vector(3), vector(3), {}, {}); }, {"batch_norm:", "(0, 3, 2, 2)"}});
  row.bad.push_back({[=] { batch_norm(Tensor::zeros({2, 3}), vector(3), vector(3), {}, {}); }, {"batch_norm:", "(2, 3)"}});
  row.bad.push_back({[=] {
                       const BatchStatistics two{vector(2), vector(3)};
                       batch_norm(image(), vector(3), vector(3), {}, {.fixed = &two});
                     },
                     {"batch_norm:", "mean", "(2)"}});
  return row;
}

/// Evaluation is elementwise, so it has second derivatives; a row of its own says so.
OpRow fixed_norm_row() {
  OpRow row{.declaration = "batch_norm(Tensor, Tensor, Tensor, Tensor, BatchNormOptions)", .float32_tolerance = 1e-4};
  for (const bool relu : {false, true})
    for (const bool residual : {false, true})
      for (const Shape& shape : {Shape{2, 3, 2, 2}, Shape{0, 3, 2, 2}}) row.cases.push_back(norm_case({shape, relu, residual, true}));
  return row;
}

}  // namespace

std::vector<OpRow> layer_rows() {
  return {matmul_row(),      linear_row(), conv_row(),      pool_row("max_pool2d", max_pool2d, true), pool_row("avg_pool2d", avg_pool2d, false),
          global_pool_row(), norm_row(),   fixed_norm_row()};
}

}  // namespace trireme::test
