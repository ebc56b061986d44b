// A row is a line, however long.
// clang-format off
// Op test table: matrix products, convolution, pooling and batch normalization.
#include <cmath>
#include <limits>

#include "tests/support/op_table.h"

namespace trireme::test {

namespace {

/// Computes (..., M,K) @ (..., K,N) with broadcasting, for shapes of at least two dimensions.
Array product_of(const Array& a, const Array& b, const Shape& shape) {
  const int rank = shape.size();
  const std::int64_t k = a.shape[a.shape.size() - 1];
  Array y(shape);
  for (std::int64_t i = 0; i < y.size(); ++i) {
    auto left = index_of(i, shape), right = left;
    for (std::int64_t j = 0; j < k; ++j) {
      left[static_cast<std::size_t>(rank - 1)] = j;
      right[static_cast<std::size_t>(rank - 2)] = j;
      y[i] += a.at(left) * b.at(right);
    }
  }
  return y;
}

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
  for (const auto& [a, b, out] : {std::tuple{Shape{2, 1, 3, 4}, Shape{5, 4, 2}, Shape{2, 5, 3, 2}}, {Shape{2, 3, 4}, Shape{4, 2}, Shape{2, 3, 2}}, {Shape{3, 4}, Shape{2, 4, 2}, Shape{2, 3, 2}}})
    row.cases.push_back({"broadcast", {{a}, {b}}, [](const Tensors& in) { return matmul(in[0], in[1]); }, [out = out](const Arrays& in) { return product_of(in[0], in[1], out); }});
  row.cases.push_back({"vectors", {{{4}}, {{4}}}, [](const Tensors& in) { return matmul(in[0], in[1]); },
                       [](const Arrays& in) { return same_order(product_of(same_order(in[0], {1, 4}), same_order(in[1], {4, 1}), {1, 1}), {}); }});
  row.cases.push_back({"matrix and vector", {{{2, 3, 4}}, {{4}}}, [](const Tensors& in) { return matmul(in[0], in[1]); },
                       [](const Arrays& in) { return same_order(product_of(in[0], same_order(in[1], {4, 1}), {2, 3, 1}), {2, 3}); }});
  row.bad.push_back({[] { matmul(Tensor::zeros({2, 3, 4}), Tensor::zeros({3, 4, 5})); }, {"matmul:", "(2, 3, 4)", "(3, 4, 5)"}});
  row.bad.push_back({[] { matmul(Tensor::zeros({3}), Tensor::zeros({4})); }, {"matmul:", "(3)", "(4)"}});
  row.bad.push_back({[] { matmul(Tensor::zeros({2, 3}), Tensor::zeros({3, 2}, DType::kFloat64)); }, {"matmul:", "float32", "float64"}});
  return row;
}

OpRow bmm_row() {
  OpRow row{.declaration = "bmm(Tensor, Tensor)"};
  row.cases.push_back({"batch", {{{2, 3, 4}}, {{2, 4, 5}}}, [](const Tensors& in) { return bmm(in[0], in[1]); }, [](const Arrays& in) { return product_of(in[0], in[1], {2, 3, 5}); }});
  row.bad.push_back({[] { bmm(Tensor::zeros({2, 3, 4}), Tensor::zeros({3, 4, 5})); }, {"bmm:", "(2, 3, 4)", "(3, 4, 5)"}});
  return row;
}

/// Computes an einsum with one nested loop for each letter.
Array einsum_reference(const std::vector<std::string>& inputs, const std::string& result, const Arrays& in) {
  std::string letters = result;
  for (const std::string& one : inputs)
    for (const char c : one)
      if (letters.find(c) == std::string::npos) letters += c;
  Shape all, shape;
  for (const char c : letters)
    for (std::size_t i = 0; i < inputs.size(); ++i)
      if (const std::size_t d = inputs[i].find(c); d != std::string::npos) {
        all.push_back(in[i].shape[static_cast<int>(d)]);
        break;
      }
  for (std::size_t d = 0; d < result.size(); ++d) shape.push_back(all[static_cast<int>(d)]);
  Array y(shape);
  std::int64_t inner = 1;
  for (int d = shape.size(); d < all.size(); ++d) inner *= all[d];
  for (std::int64_t i = 0; i < all.numel(); ++i) {
    const auto at = index_of(i, all);
    double term = 1;
    for (std::size_t k = 0; k < inputs.size(); ++k) {
      std::vector<std::int64_t> index;
      for (const char c : inputs[k]) index.push_back(at[letters.find(c)]);
      term *= in[k].at(index);
    }
    y[i / inner] += term;
  }
  return y;
}

OpRow einsum_row() {
  OpRow row{.declaration = "einsum(std::string, std::vector<Tensor>)"};
  const auto add = [&](const char* equation, std::vector<std::string> inputs, const std::string& result, std::vector<Input> shapes) {
    row.cases.push_back({equation, std::move(shapes), [equation = std::string(equation)](const Tensors& in) { return einsum(equation, in); },
                         [inputs, result](const Arrays& in) { return einsum_reference(inputs, result, in); }});
  };
  add("ij, jk -> ik", {"ij", "jk"}, "ik", {{{2, 3}}, {{3, 4}}});
  add("bij,bkj->bik", {"bij", "bkj"}, "bik", {{{2, 3, 4}}, {{2, 5, 4}}});
  add("ij,k->kji", {"ij", "k"}, "kji", {{{2, 3}}, {{4}}});
  add("iij->j", {"iij"}, "j", {{{3, 3, 2}}});
  add("ii", {"ii"}, "", {{{3, 3}}});
  add("ab,bc,cd->da", {"ab", "bc", "cd"}, "da", {{{2, 3}}, {{3, 4}}, {{4, 2}}});
  add("bhqd,bhkd->bhqk", {"bhqd", "bhkd"}, "bhqk", {{{2, 2, 3, 4}}, {{2, 2, 5, 4}}});
  add("ij,ij->", {"ij", "ij"}, "", {{{2, 3}}, {{2, 3}}});
  row.bad.push_back({[] { einsum("ij,jk", {Tensor::zeros({2, 3}), Tensor::zeros({4, 2})}); }, {"einsum:", "'j'", "3 and, in operand 1 of shape (4, 2), 4"}});
  row.bad.push_back({[] { einsum("ij,jk", {Tensor::zeros({2, 3})}); }, {"einsum:", "2 operands", "1 were"}});
  row.bad.push_back({[] { einsum("i->x", {Tensor::zeros({2})}); }, {"einsum:", "'x'"}});
  row.bad.push_back({[] { einsum("i.", {Tensor::zeros({2})}); }, {"einsum:", "'.'"}});
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

/// Calls fn(y index, x index or -1 in the padding, ky, kx) for each position of each window. Windows cover all
/// (n, c) planes.
template <class Fn>
void for_each_place(std::int64_t h, std::int64_t w, std::int64_t kh, std::int64_t kw, std::int64_t stride, std::int64_t padding, const Fn& fn, std::int64_t gap = 1) {
  const std::int64_t oh = (h + 2 * padding - gap * (kh - 1) - 1) / stride + 1, ow = (w + 2 * padding - gap * (kw - 1) - 1) / stride + 1;
  for (std::int64_t p = 0; p < oh * ow; ++p)
    for (std::int64_t q = 0; q < kh * kw; ++q) {
      const std::int64_t iy = p / ow * stride - padding + q / kw * gap, ix = p % ow * stride - padding + q % kw * gap;
      const bool inside = iy >= 0 && iy < h && ix >= 0 && ix < w;
      fn(p, inside ? iy * w + ix : -1, q);
    }
}

Shape windowed(const Shape& x, std::int64_t channels, std::int64_t kh, std::int64_t kw, std::int64_t stride, std::int64_t padding, std::int64_t gap = 1) {
  return {x[0], channels, (x[2] + 2 * padding - gap * (kh - 1) - 1) / stride + 1, (x[3] + 2 * padding - gap * (kw - 1) - 1) / stride + 1};
}

Array conv_reference(const Arrays& in, const Conv2dOptions& o) {
  const Array &x = in[0], &w = in[1];
  const std::int64_t kh = w.shape[2], kw = w.shape[3], out = w.shape[0], depth = w.shape[1], plane = x.shape[2] * x.shape[3];
  Array y(windowed(x.shape, out, kh, kw, o.stride, o.padding, o.dilation));
  const std::int64_t y_plane = y.shape[2] * y.shape[3];
  for (std::int64_t i = 0; i < y.size() && in.size() > 2; ++i) y[i] = in[2][i / y_plane % out];
  for (std::int64_t n = 0; n < x.shape[0]; ++n)
    for (std::int64_t c = 0; c < out; ++c)
      for (std::int64_t d = 0; d < depth; ++d) {
        const std::int64_t channel = c / (out / o.groups) * depth + d;
        for_each_place(x.shape[2], x.shape[3], kh, kw, o.stride, o.padding, [&](auto p, auto from, auto q) {
          if (from >= 0)
            y[(n * out + c) * y_plane + p] += x[(n * x.shape[1] + channel) * plane + from] * w[(c * depth + d) * kh * kw + q];
        }, o.dilation);
      }
  return y;
}

OpRow conv_row() {
  OpRow row{.declaration = "conv2d(Tensor, Tensor, Tensor, Conv2dOptions)"};
  struct Shapes {
    Shape x, w;
    Conv2dOptions o;
  };
  for (const Shapes& s :
       {Shapes{{2, 3, 5, 5}, {4, 3, 3, 3}, {1, 1, 1}}, Shapes{{2, 3, 6, 5}, {2, 3, 3, 2}, {2, 0, 1}}, Shapes{{1, 4, 4, 4}, {4, 2, 3, 3}, {1, 1, 2}},
        Shapes{{2, 4, 4, 4}, {4, 1, 3, 3}, {2, 1, 4}}, Shapes{{2, 1, 6, 6}, {3, 1, 3, 3}, {1, 1, 1}}, Shapes{{2, 5, 3, 3}, {3, 5, 1, 1}, {1, 0, 1}},
        Shapes{{2, 3, 5, 5}, {4, 3, 1, 1}, {2, 0, 1}}, Shapes{{0, 3, 5, 5}, {4, 3, 3, 3}, {1, 1, 1}}, Shapes{{2, 2, 1, 1}, {2, 2, 1, 1}, {1, 0, 1}},
        Shapes{{1, 16, 5, 5}, {17, 16, 3, 3}, {1, 1, 1}}, Shapes{{1, 2, 3, 3}, {2, 2, 5, 5}, {1, 2, 1}}, Shapes{{2, 3, 4, 4}, {0, 3, 3, 3}, {1, 1, 1}},
        Shapes{{2, 3, 7, 6}, {4, 3, 3, 2}, {1, 1, 1, 2}}, Shapes{{1, 4, 8, 8}, {4, 1, 3, 3}, {2, 2, 4, 3}}}) {
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
  row.bad.push_back({[] { conv2d(Tensor::zeros({1, 0, 4, 4}), Tensor::zeros({2, 0, 1, 1})); }, {"conv2d:", "(1, 0, 4, 4)", "no channels"}});
  row.bad.push_back({[image] { conv2d(image(), Tensor::zeros({2, 3})); }, {"conv2d:", "(2, 3)", "4 dimensions"}});
  row.bad.push_back({[image] { conv2d(image(), Tensor::zeros({2, 3, 5, 5})); }, {"conv2d:", "kernel of w (2, 3, 5, 5)", "reaches over 5", "padded 4 of an image (1, 3, 4, 4)"}});
  row.bad.push_back({[image] { conv2d(image(), Tensor::zeros({2, 3, 3, 3}), Tensor::zeros({3})); }, {"conv2d:", "(3)", "(2, 3, 3, 3)"}});
  row.bad.push_back({[image] { conv2d(image(), Tensor::zeros({2, 3, 3, 3}), {}, {.stride = 0}); }, {"conv2d:", "stride 0"}});
  row.bad.push_back({[image] { conv2d(image(), Tensor::zeros({2, 1, 3, 3}), {}, {.groups = 3}); }, {"conv2d:", "groups 3"}});
  row.bad.push_back({[image] { conv2d(image(), Tensor::zeros({2, 3, 3, 3}, DType::kFloat64)); }, {"conv2d:", "float32", "float64"}});
  return row;
}

OpRow pool_row(const std::string& name, Tensor (*op)(const Tensor&, const PoolOptions&), bool is_max) {
  OpRow row{.declaration = name + "(Tensor, PoolOptions)"};
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

OpRow conv1d_row() {
  OpRow row{.declaration = "conv1d(Tensor, Tensor, Tensor, Conv2dOptions)"};
  for (const Conv2dOptions& o : {Conv2dOptions{}, Conv2dOptions{2, 1, 1, 2}})
    row.cases.push_back({"lines", {{{2, 3, 8}}, {{4, 3, 3}}, {{4}, -1, 1, Kind::kOptional}}, [o](const Tensors& in) { return conv1d(in[0], in[1], in[2], o); },
                         [o](const Arrays& in) {
                           // Runs along the height of an image and kernel of width 1. Padding would widen the
                           // image, so the height is padded here.
                           Array padded({2, 3, 8 + 2 * o.padding, 1});
                           for (std::int64_t i = 0; i < in[0].size(); ++i) padded[i / 8 * (8 + 2 * o.padding) + i % 8 + o.padding] = in[0][i];
                           Conv2dOptions plain = o;
                           plain.padding = 0;
                           Arrays wide{padded, same_order(in[1], {4, 3, 3, 1}), in[2]};
                           const Array y = conv_reference(wide, plain);
                           return same_order(y, {2, 4, y.shape[2]});
                         }});
  row.bad.push_back({[] { conv1d(Tensor::zeros({2, 3}), Tensor::zeros({2, 3, 1})); }, {"conv1d:", "(2, 3)", "3 dimensions"}});
  return row;
}

/// Computes a transposed convolution: adds w times each element of x to y, at stride times the element's
/// position.
Array transposed_reference(const Arrays& in, const ConvTransposeOptions& o) {
  const Array &x = in[0], &w = in[1];
  const std::int64_t depth = w.shape[1], channels = depth * o.groups, kh = w.shape[2], kw = w.shape[3];
  const auto grown = [&](std::int64_t size, std::int64_t k) { return (size - 1) * o.stride - 2 * o.padding + o.dilation * (k - 1) + o.output_padding + 1; };
  Array y({x.shape[0], channels, grown(x.shape[2], kh), grown(x.shape[3], kw)});
  const std::int64_t plane = y.shape[2] * y.shape[3];
  for (std::int64_t i = 0; i < y.size() && in.size() > 2; ++i) y[i] = in[2][i / plane % channels];
  for (std::int64_t i = 0; i < x.size(); ++i) {
    const auto at = index_of(i, x.shape);
    for (std::int64_t k = 0; k < depth * kh * kw; ++k) {
      const std::int64_t d = k / (kh * kw), ky = k / kw % kh, kx = k % kw, c = at[1] / (x.shape[1] / o.groups) * depth + d;
      const std::int64_t row = at[2] * o.stride - o.padding + ky * o.dilation, column = at[3] * o.stride - o.padding + kx * o.dilation;
      if (row < 0 || row >= y.shape[2] || column < 0 || column >= y.shape[3]) continue;
      y[((at[0] * channels + c) * y.shape[2] + row) * y.shape[3] + column] += x[i] * w[(at[1] * depth + d) * kh * kw + ky * kw + kx];
    }
  }
  return y;
}

OpRow transposed_row() {
  OpRow row{.declaration = "conv_transpose2d(Tensor, Tensor, Tensor, ConvTransposeOptions)"};
  struct Shapes {
    Shape x, w;
    ConvTransposeOptions o;
  };
  for (const Shapes& s : {Shapes{{2, 3, 3, 4}, {3, 2, 3, 3}, {}}, Shapes{{2, 4, 3, 3}, {4, 1, 3, 2}, {2, 1, 1, 2}}, Shapes{{1, 2, 3, 3}, {2, 3, 2, 2}, {1, 0, 0, 1, 2}}}) {
    row.cases.push_back({s.x.to_string(), {{s.x}, {s.w}, {{s.w[1] * s.o.groups}, -1, 1, Kind::kOptional}}, [s](const Tensors& in) { return conv_transpose2d(in[0], in[1], in[2], s.o); },
                         [s](const Arrays& in) { return transposed_reference(in, s.o); }});
  }
  row.bad.push_back({[] { conv_transpose2d(Tensor::zeros({2, 3, 3, 3}), Tensor::zeros({2, 3, 3, 3})); }, {"conv_transpose2d:", "(2, 3, 3, 3)"}});
  row.bad.push_back({[] { conv_transpose2d(Tensor::zeros({2, 3, 3, 3}), Tensor::zeros({3, 2, 3, 0}), {}, {.stride = 4, .output_padding = 1}); }, {"conv_transpose2d:", "kernel 0"}});
  row.bad.push_back({[] { conv_transpose2d(Tensor::zeros({2, 3, 3, 3}), Tensor::zeros({3, 0, 3, 3})); }, {"conv_transpose2d:", "(3, 0, 3, 3)", "no channels"}});
  row.bad.push_back({[] { conv_transpose2d(Tensor::zeros({2, 3, 3, 3}), Tensor::zeros({3, 3, 3, 3}), {}, {.output_padding = 1}); }, {"conv_transpose2d:", "output_padding 1"}});
  return row;
}

OpRow adaptive_pool_row() {
  OpRow row{.declaration = "adaptive_avg_pool2d(Tensor, std::int64_t, std::int64_t)"};
  for (const auto& [h, w] : {std::pair{2, 3}, {1, 1}, {5, 7}})
    row.cases.push_back({std::to_string(h), {{{2, 3, 5, 4}}}, [h = h, w = w](const Tensors& in) { return adaptive_avg_pool2d(in[0], h, w); }, [h = h, w = w](const Arrays& in) {
                           Array y({2, 3, h, w});
                           for (std::int64_t i = 0; i < y.size(); ++i) {
                             const auto at = index_of(i, y.shape);
                             const std::int64_t top = at[2] * 5 / h, bottom = ((at[2] + 1) * 5 + h - 1) / h, left = at[3] * 4 / w, right = ((at[3] + 1) * 4 + w - 1) / w;
                             for (std::int64_t p = top; p < bottom; ++p)
                               for (std::int64_t q = left; q < right; ++q) y[i] += in[0].at({at[0], at[1], p, q}) / static_cast<double>((bottom - top) * (right - left));
                           }
                           return y;
                         }});
  row.bad.push_back({[] { adaptive_avg_pool2d(Tensor::zeros({1, 2, 3, 3}), 0, 1); }, {"adaptive_avg_pool2d:", "0 x 1"}});
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

/// A form of batch normalization. Inputs are x, gamma, beta, the residual if `residual`, and mean and variance
/// if `fixed`.
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
  OpRow row{.declaration = "batch_norm(Tensor, Tensor, Tensor, Tensor, BatchNormOptions)", .float32_tolerance = 1e-4};
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

/// Views x as (rows, width) and scales each row to mean 0 (if `centered`) and mean square 1. Then multiplies
/// by gamma and adds beta.
Array normal_rows(Array x, std::int64_t width, double eps, bool centered, const std::function<double(std::int64_t)>& gamma, const std::function<double(std::int64_t)>& beta) {
  for (std::int64_t r = 0; r < x.size() / width; ++r) {
    double mean = 0, square = 0;
    for (std::int64_t k = 0; k < width && centered; ++k) mean += x[r * width + k] / static_cast<double>(width);
    for (std::int64_t k = 0; k < width; ++k) square += (x[r * width + k] - mean) * (x[r * width + k] - mean) / static_cast<double>(width);
    for (std::int64_t k = r * width; k < (r + 1) * width; ++k) x[k] = (x[k] - mean) / std::sqrt(square + eps) * gamma(k) + beta(k);
  }
  return x;
}

std::vector<OpRow> row_norm_rows() {
  OpRow layer{.declaration = "layer_norm(Tensor, Tensor, Tensor, double)", .float32_tolerance = 1e-4}, rms{.declaration = "rms_norm(Tensor, Tensor, double)", .float32_tolerance = 1e-4};
  OpRow group{.declaration = "group_norm(Tensor, std::int64_t, Tensor, Tensor, double)", .float32_tolerance = 1e-4};
  const auto one = [](std::int64_t) { return 1.0; };
  const auto zero = [](std::int64_t) { return 0.0; };
  for (const auto& [x, w] : {std::pair{Shape{3, 5}, Shape{5}}, {Shape{2, 3, 70}, Shape{70}}, {Shape{2, 3, 4}, Shape{3, 4}}, {Shape{0, 4}, Shape{4}}}) {
    const std::int64_t n = w.numel();
    const auto of = [n](const Array& a) { return [a, n](std::int64_t i) { return a[i % n]; }; };
    layer.cases.push_back({x.to_string(), {{x}, {w}, {w}}, [](const Tensors& in) { return layer_norm(in[0], in[1], in[2], 1e-3); }, [=](const Arrays& in) { return normal_rows(in[0], n, 1e-3, true, of(in[1]), of(in[2])); }});
    rms.cases.push_back({x.to_string(), {{x}, {w}}, [](const Tensors& in) { return rms_norm(in[0], in[1], 1e-3); }, [=](const Arrays& in) { return normal_rows(in[0], n, 1e-3, false, of(in[1]), zero); }});
  }
  layer.cases.push_back({"plain", {{{2, 3, 4}}}, [](const Tensors& in) { return layer_norm(in[0]); }, [=](const Arrays& in) { return normal_rows(in[0], 4, 1e-5, true, one, zero); }});
  layer.bad.push_back({[] { layer_norm(Tensor::zeros({2, 3}), Tensor::zeros({2})); }, {"layer_norm:", "(2)", "(2, 3)", "(3)"}});
  rms.bad.push_back({[] { rms_norm(Tensor::zeros({2, 0})); }, {"rms_norm:", "(2, 0)"}});
  for (const Shape& x : {Shape{2, 4, 3}, Shape{2, 6, 2, 2}}) {
    const std::int64_t plane = x.numel() / x[0] / x[1], channels = x[1];
    const auto of = [=](const Array& a) { return [=](std::int64_t i) { return a[i / plane % channels]; }; };
    group.cases.push_back({x.to_string(), {{x}, {{channels}}, {{channels}}}, [](const Tensors& in) { return group_norm(in[0], 2, in[1], in[2], 1e-3); },
                           [=](const Arrays& in) { return normal_rows(in[0], channels / 2 * plane, 1e-3, true, of(in[1]), of(in[2])); }});
  }
  group.bad.push_back({[] { group_norm(Tensor::zeros({2, 3, 2}), 2); }, {"group_norm:", "2 groups", "(2, 3, 2)"}});
  for (OpRow* row : {&layer, &rms, &group})
    for (Case& c : row->cases)
      for (std::size_t i = 1; i < c.inputs.size(); ++i) c.inputs[i].kind = Kind::kOptional;
  return {layer, rms, group};
}

/// Returns the row of batch normalization with fixed statistics, which is elementwise.
OpRow fixed_norm_row() {
  OpRow row{.declaration = "batch_norm(Tensor, Tensor, Tensor, Tensor, BatchNormOptions)", .float32_tolerance = 1e-4};
  for (const bool relu : {false, true})
    for (const bool residual : {false, true})
      for (const Shape& shape : {Shape{2, 3, 2, 2}, Shape{0, 3, 2, 2}}) row.cases.push_back(norm_case({shape, relu, residual, true}));
  return row;
}

}  // namespace

std::vector<OpRow> layer_rows() {
  std::vector<OpRow> rows{matmul_row(), bmm_row(), einsum_row(), linear_row(), conv_row(),      pool_row("max_pool2d", max_pool2d, true), pool_row("avg_pool2d", avg_pool2d, false),
          global_pool_row(), conv1d_row(), transposed_row(), adaptive_pool_row(), norm_row(),   fixed_norm_row()};
  for (const OpRow& row : row_norm_rows()) rows.push_back(row);
  return rows;
}

}  // namespace trireme::test
