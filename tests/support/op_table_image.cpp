// A row is a line, however long.
// clang-format off
// Op test table: images of another size, and windows that pool_row() does not have.
#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/support/op_table.h"

namespace trireme::test {

namespace {

/// Returns the position in the input of output position i of `count`, as PyTorch's manual defines it.
double position(std::int64_t i, std::int64_t size, std::int64_t count, double scale, const InterpolateOptions& o) {
  const double step = scale > 0 ? 1 / scale : static_cast<double>(size) / static_cast<double>(count), at = static_cast<double>(i);
  if (o.mode == Interpolation::kNearest) return std::fmin(std::floor(at * step + 1e-9), static_cast<double>(size - 1));
  if (o.align_corners) return count == 1 ? 0 : at * static_cast<double>(size - 1) / static_cast<double>(count - 1);
  return std::fmin(std::fmax((at + 0.5) * step - 0.5, 0), static_cast<double>(size - 1));
}

/// Resizes images. An output pixel is the sum of all input pixels, weighted by a tent of width 1 around each.
Array resized(const Array& x, const InterpolateOptions& o) {
  const auto count = [&](int d) { return o.size.empty() ? static_cast<std::int64_t>(std::floor(static_cast<double>(x.shape[2 + d]) * o.scale_factor[static_cast<std::size_t>(d)])) : o.size[static_cast<std::size_t>(d)]; };
  const auto scale = [&](int d) { return o.size.empty() ? o.scale_factor[static_cast<std::size_t>(d)] : 0; };
  Array y({x.shape[0], x.shape[1], count(0), count(1)});
  for (std::int64_t i = 0; i < y.size(); ++i) {
    const auto at = index_of(i, y.shape);
    const double row = position(at[2], x.shape[2], count(0), scale(0), o), column = position(at[3], x.shape[3], count(1), scale(1), o);
    for (std::int64_t r = 0; r < x.shape[2]; ++r)
      for (std::int64_t c = 0; c < x.shape[3]; ++c)
        y[i] += x.at({at[0], at[1], r, c}) * std::fmax(0, 1 - std::fabs(row - static_cast<double>(r))) * std::fmax(0, 1 - std::fabs(column - static_cast<double>(c)));
  }
  return y;
}

OpRow interpolate_row() {
  OpRow row{.declaration = "interpolate(Tensor, InterpolateOptions)"};
  const auto add = [&](const Shape& x, const InterpolateOptions& o) {
    row.cases.push_back({x.to_string(), {{x}}, [o](const Tensors& in) { return interpolate(in[0], o); }, [o](const Arrays& in) { return resized(in[0], o); }});
  };
  for (const Interpolation mode : {Interpolation::kBilinear, Interpolation::kNearest}) {
    add({2, 3, 4, 5}, {.size = {7, 3}, .mode = mode});
    add({1, 17, 3, 3}, {.scale_factor = {2, 2}, .mode = mode});
    add({2, 1, 5, 4}, {.scale_factor = {0.5, 1.6}, .mode = mode});
    add({0, 2, 3, 3}, {.size = {2, 2}, .mode = mode});
    add({1, 2, 1, 1}, {.size = {3, 2}, .mode = mode});
    add({1, 2, 3, 3}, {.size = {1, 3}, .mode = mode});
  }
  for (const auto& size : {std::vector<std::int64_t>{7, 3}, {1, 9}}) add({2, 3, 4, 5}, {.size = size, .mode = Interpolation::kBilinear, .align_corners = true});
  const auto bad = [](const Shape& x, const InterpolateOptions& o) { return [=] { interpolate(Tensor::zeros(x), o); }; };
  row.bad = {{bad({2, 3}, {.size = {2, 2}}), {"interpolate:", "(2, 3)", "4 dimensions"}},
             {bad({1, 1, 2, 2}, {}), {"interpolate:", "0 sizes and 0 scale"}},
             {bad({1, 1, 2, 2}, {.size = {2, 2}, .scale_factor = {1, 1}}), {"interpolate:", "2 sizes and 2 scale"}},
             {bad({1, 1, 2, 2}, {.size = {2}}), {"interpolate:", "1 sizes"}},
             {bad({1, 1, 2, 2}, {.scale_factor = {0.4, 2}}), {"interpolate:", "(1, 1, 2, 2)", "to 0"}},
             {bad({1, 1, 0, 2}, {.size = {2, 2}}), {"interpolate:", "(1, 1, 0, 2)"}},
             {bad({1, 1, 2, 2}, {.size = {2, 2}, .align_corners = true}), {"interpolate:", "align_corners"}}};
  return row;
}

/// Lists, for each output position along an axis, the input positions of its window.
using Places = std::vector<std::vector<std::int64_t>>;
Array largest(const Array& x, const Places& rows, const Places& columns) {
  Array y({x.shape[0], x.shape[1], static_cast<std::int64_t>(rows.size()), static_cast<std::int64_t>(columns.size())}, -std::numeric_limits<double>::infinity());
  for (std::int64_t i = 0; i < y.size(); ++i) {
    const auto at = index_of(i, y.shape);
    for (const std::int64_t r : rows[static_cast<std::size_t>(at[2])])
      for (const std::int64_t c : columns[static_cast<std::size_t>(at[3])]) y[i] = std::fmax(y[i], x.at({at[0], at[1], r, c}));
  }
  return y;
}

OpRow adaptive_max_row() {
  OpRow row{.declaration = "adaptive_max_pool2d(Tensor, std::int64_t, std::int64_t)"};
  const auto places = [](std::int64_t size, std::int64_t count) {
    Places all;
    for (std::int64_t i = 0; i < count; ++i) {
      all.emplace_back();
      for (std::int64_t k = i * size / count; k * count < (i + 1) * size; ++k) all.back().push_back(k);
    }
    return all;
  };
  for (const auto& [h, w] : {std::pair{2, 3}, {1, 1}, {5, 4}, {7, 3}})
    for (const Shape& x : {Shape{2, 3, 5, 4}, Shape{0, 2, 3, 3}})
      row.cases.push_back({std::to_string(h), {{x}}, [h = h, w = w](const Tensors& in) { return adaptive_max_pool2d(in[0], h, w); },
                           [=, h = h, w = w](const Arrays& in) { return largest(in[0], places(in[0].shape[2], h), places(in[0].shape[3], w)); }});
  row.bad.push_back({[] { adaptive_max_pool2d(Tensor::zeros({1, 2, 3, 3}), 0, 1); }, {"adaptive_max_pool2d:", "0 x 1"}});
  row.bad.push_back({[] { adaptive_max_pool2d(Tensor::zeros({2, 3}), 1, 1); }, {"adaptive_max_pool2d:", "(2, 3)", "4 dimensions"}});
  return row;
}

OpRow wide_max_row() {
  OpRow row{.declaration = "max_pool2d(Tensor, PoolOptions)"};
  // `rows` and `columns` list PyTorch's windows along each axis.
  const auto add = [&](const Shape& x, const PoolOptions& o, const Places& rows, const Places& columns) {
    row.cases.push_back({x.to_string(), {{x}}, [o](const Tensors& in) { return max_pool2d(in[0], o); }, [=](const Arrays& in) { return largest(in[0], rows, columns); }});
  };
  add({2, 3, 5, 6}, {.kernel = 2, .stride = 1, .dilation = 3}, {{0, 3}, {1, 4}}, {{0, 3}, {1, 4}, {2, 5}});
  add({1, 2, 5, 4}, {.kernel = 3, .stride = 2, .padding = 1, .dilation = 2}, {{1, 3}, {1, 3}}, {{1, 3}});
  add({1, 2, 5, 6}, {.kernel = 2, .ceil_mode = true}, {{0, 1}, {2, 3}, {4}}, {{0, 1}, {2, 3}, {4, 5}});
  add({1, 2, 4, 5}, {.kernel = 3, .stride = 2, .padding = 1, .ceil_mode = true}, {{0, 1}, {1, 2, 3}, {3}}, {{0, 1}, {1, 2, 3}, {3, 4}});
  add({1, 1, 3, 2}, {.kernel = 2, .stride = 4, .padding = 1, .ceil_mode = true}, {{0}}, {{0}});  // the next window would begin past the end
  row.bad.push_back({[] { max_pool2d(Tensor::zeros({1, 1, 4, 4}), {.dilation = 0}); }, {"max_pool2d:", "dilation 0"}});
  row.bad.push_back({[] { max_pool2d(Tensor::zeros({1, 1, 2, 9}), {.padding = 1, .dilation = 3}); }, {"max_pool2d:", "dilation 3", "(1, 1, 2, 9)"}});
  row.bad.push_back({[] { avg_pool2d(Tensor::zeros({1, 1, 4, 4}), {.dilation = 2}); }, {"avg_pool2d:", "dilation 2"}});
  return row;
}

}  // namespace

std::vector<OpRow> image_rows() { return {interpolate_row(), adaptive_max_row(), wide_max_row()}; }

}  // namespace trireme::test
