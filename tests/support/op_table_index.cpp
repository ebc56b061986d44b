// A row is a line, however long.
// clang-format off
// Op test table: ops that pick, place, cut, repeat, turn and pad.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/support/op_table.h"

namespace trireme::test {

namespace {

using Index = std::vector<std::int64_t>;

std::size_t u(int i) { return static_cast<std::size_t>(i); }

std::int64_t position(const Index& index, const Shape& shape) {
  std::int64_t at = 0;
  for (int d = 0; d < shape.size(); ++d) at = at * shape[d] + index[u(d)];
  return at;
}

/// Returns an array whose element at each index is fn(index).
Array made(const Shape& shape, const std::function<double(const Index&)>& fn) {
  Array y(shape);
  for (std::int64_t i = 0; i < y.size(); ++i) y[i] = fn(index_of(i, shape));
  return y;
}

Input label(const Shape& shape, double classes) { return {shape, 0, classes, Kind::kLabel}; }

OpRow anything(const char* declaration) { return {.declaration = declaration, .takes = Takes::kAnything}; }
OpRow numbers(const char* declaration) { return {.declaration = declaration, .takes = Takes::kNumbers}; }

Index with(Index index, int d, double value) {
  index[u(d)] = static_cast<std::int64_t>(value);
  return index;
}

std::vector<OpRow> gather_rows() {
  OpRow row = anything("gather(Tensor, int, Tensor)"), along = anything("take_along_dim(Tensor, Tensor, int)");
  for (const auto& [shape, dim, index] : {std::tuple{Shape{4, 3}, 0, Shape{5, 3}}, {Shape{3, 4}, -1, Shape{2, 6}}, {Shape{2, 3, 2}, 1, Shape{1, 4, 2}}, {Shape{3}, 0, Shape{0}}}) {
    const int d = dim < 0 ? dim + shape.size() : dim;
    const auto reference = [d](const Arrays& in) { return made(in[1].shape, [&](const Index& i) { return in[0].at(with(i, d, in[1].at(i))); }); };
    row.cases.push_back({shape.to_string(), {{shape}, label(index, static_cast<double>(shape[d]))}, [dim = dim](const Tensors& in) { return gather(in[0], dim, in[1]); }, reference});
  }
  row.bad.push_back({[] { gather(Tensor::zeros({2, 3}), 1, Tensor::full({2, 1}, 3, DType::kInt64)); }, {"gather:", "index 3", "0..2"}});
  row.bad.push_back({[] { gather(Tensor::zeros({2, 3}), 1, Tensor::full({2, 1}, -1, DType::kInt64)); }, {"gather:", "index -1"}});
  row.bad.push_back({[] { gather(Tensor::zeros({2, 3}), 1, Tensor::zeros({2, 1})); }, {"gather:", "int64", "float32"}});
  row.bad.push_back({[] { gather(Tensor::zeros({2, 3}), 1, Tensor::zeros({3, 1}, DType::kInt64)); }, {"gather:", "(3, 1)", "(2, 3)"}});
  along.cases.push_back({"broadcast", {{{2, 3, 4}}, label({2, 1, 5}, 4)}, [](const Tensors& in) { return take_along_dim(in[0], in[1], 2); },
                         [](const Arrays& in) { return made({2, 3, 5}, [&](const Index& i) { return in[0].at(with(i, 2, in[1].at(i))); }); }});
  along.bad.push_back({[] { take_along_dim(Tensor::zeros({2, 3}), Tensor::zeros({3}, DType::kInt64), 0); }, {"take_along_dim:", "(3)", "(2, 3)"}});
  return {row, along};
}

std::vector<OpRow> scatter_rows() {
  OpRow set = anything("scatter(Tensor, int, Tensor, Tensor)"), sum = numbers("scatter_add(Tensor, int, Tensor, Tensor)"), line = numbers("index_add(Tensor, int, Tensor, Tensor)");
  const auto place = [](bool adds, int dim) {
    return [adds, dim](const Arrays& in) {
      Array y = in[0];
      for (std::int64_t i = 0; i < in[2].size(); ++i) {
        const Index at = with(index_of(i, in[1].shape), dim, in[1][i]);
        double& element = y[position(at, y.shape)];
        element = (adds ? element : 0) + in[2][i];
      }
      return y;
    };
  };
  for (const auto& [shape, index] : {std::pair{Shape{3, 4}, Shape{5, 4}}, {Shape{3, 4}, Shape{2, 3}}, {Shape{3, 70}, Shape{2, 70}}}) {
    sum.cases.push_back({index.to_string(), {{shape}, label(index, 3), {index}}, [](const Tensors& in) { return scatter_add(in[0], 0, in[1], in[2]); }, place(true, 0)});
    // Each element of the result has one source only. With two, the derivative of one of them would be zero.
    if (index[0] <= 3)
      set.cases.push_back({index.to_string(), {{shape}, label({1, index[1]}, 3), {{1, index[1]}}}, [](const Tensors& in) { return scatter(in[0], 0, in[1], in[2]); }, place(false, 0)});
  }
  set.bad.push_back({[] { scatter(Tensor::zeros({2, 3}), 0, Tensor::zeros({1, 3}, DType::kInt64), Tensor::zeros({1, 2})); }, {"scatter:", "(1, 2)", "(1, 3)"}});
  line.cases.push_back({"repeated", {{{3, 2}}, label({5}, 3), {{5, 2}}}, [](const Tensors& in) { return index_add(in[0], 0, in[1], in[2]); }, [](const Arrays& in) {
                          Array y = in[0];
                          for (std::int64_t i = 0; i < 10; ++i) y[static_cast<std::int64_t>(in[1][i / 2]) * 2 + i % 2] += in[2][i];
                          return y;
                        }});
  line.bad.push_back({[] { index_add(Tensor::zeros({2, 3}), 0, Tensor::zeros({1}, DType::kInt64), Tensor::zeros({2, 3})); }, {"index_add:", "(2, 3)", "(1, 3)"}});
  return {set, sum, line};
}

std::vector<OpRow> pick_rows() {
  OpRow lines = anything("index_select(Tensor, int, Tensor)"), table = anything("embedding(Tensor, Tensor, std::optional<std::int64_t>)");
  OpRow picked = anything("index(Tensor, std::vector<Tensor>)"), put = anything("index_put(Tensor, std::vector<Tensor>, Tensor, bool)");
  OpRow masked = anything("masked_select(Tensor, Tensor)");
  for (const int dim : {0, 1, -1})
    lines.cases.push_back({std::to_string(dim), {{{2, 3, 4}}, label({5}, 2)}, [dim](const Tensors& in) { return index_select(in[0], dim, in[1]); },
                           [d = dim < 0 ? 2 : dim](const Arrays& in) {
                             Shape shape{2, 3, 4};
                             shape[d] = 5;
                             return made(shape, [&](const Index& i) { return in[0].at(with(i, d, in[1][i[u(d)]])); });
                           }});
  lines.bad.push_back({[] { index_select(Tensor::zeros({2, 3}), 0, Tensor::zeros({1, 1}, DType::kInt64)); }, {"index_select:", "(1, 1)", "exactly one"}});
  table.cases.push_back({"matrix of indices", {{{4, 3}}, label({2, 5}, 4)}, [](const Tensors& in) { return embedding(in[0], in[1]); },
                         [](const Arrays& in) { return made({2, 5, 3}, [&](const Index& i) { return in[0].at({static_cast<std::int64_t>(in[1].at({i[0], i[1]})), i[2]}); }); }});
  table.bad.push_back({[] { embedding(Tensor::zeros({4, 3}), Tensor::full({1}, 4, DType::kInt64)); }, {"embedding:", "index 4", "0..3"}});
  table.bad.push_back({[] { embedding(Tensor::zeros({4, 3}), Tensor::zeros({1}, DType::kInt64), -5); }, {"embedding:", "-5", "-4..3"}});
  picked.cases.push_back({"two", {{{3, 4, 2}}, label({5}, 3), label({2, 1}, 4)}, [](const Tensors& in) { return index(in[0], {in[1], in[2].defined() ? sub(in[2], 4) : in[2]}); }, [](const Arrays& in) {
                            return made({2, 5, 2}, [&](const Index& i) { return in[0].at({static_cast<std::int64_t>(in[1][i[1]]), static_cast<std::int64_t>(in[2][i[0]]), i[2]}); });
                          }});
  picked.bad.push_back({[] { index(Tensor::zeros({3}), {Tensor::full({1}, -4, DType::kInt64)}); }, {"index:", "index -4", "-3..2"}});
  put.cases.push_back({"set", {{{3, 4}}, {{2}}}, [](const Tensors& in) { return index_put(in[0], {beside(in, Tensor::from(Index{2, 0}, {2})), beside(in, Tensor::from(Index{1, -1}, {2}))}, in[1]); }, [](const Arrays& in) {
                         Array y = in[0];
                         y[9] = in[1][0];
                         y[3] = in[1][1];
                         return y;
                       }});
  put.cases.push_back({"add rows", {{{3, 4}}, {{4}}}, [](const Tensors& in) { return in[0].defined() && in[0].dtype() == DType::kBool ? index_put(in[0], {beside(in, Tensor::zeros({0}, DType::kInt64))}, in[1]) : index_put(in[0], {beside(in, Tensor::from(Index{1, 1}, {2}))}, in[1], true); }, [](const Arrays& in) {
                         Array y = in[0];
                         for (std::int64_t k = 0; k < 4; ++k) y[4 + k] += 2 * in[1][k];
                         return y;
                       }});
  put.bad.push_back({[] { index_put(Tensor::zeros({3}), {}, Tensor::zeros({1})); }, {"index_put:", "0 indices"}});
  masked.cases.push_back({"broadcast", {{{2, 3}}}, [](const Tensors& in) { return masked_select(in[0], beside(in, Tensor::from(std::vector<bool>{true, false, true}, {3}))); },
                          [](const Arrays& in) { return made({4}, [&](const Index& i) { return in[0][i[0] / 2 * 3 + i[0] % 2 * 2]; }); }});
  masked.bad.push_back({[] { masked_select(Tensor::zeros({3}), Tensor::zeros({3})); }, {"masked_select:", "bool"}});
  return {lines, table, picked, put, masked};
}

/// Applies fn to each line of x along the last dimension.
Array by_line(const Array& x, std::int64_t width, const std::function<std::vector<double>(std::vector<double>)>& fn) {
  Shape shape = x.shape;
  const std::int64_t before = shape[shape.size() - 1];
  shape[shape.size() - 1] = width;
  Array y(shape);
  for (std::int64_t r = 0; r < x.size() / before; ++r) {
    std::vector<double> line(x.values.begin() + r * before, x.values.begin() + (r + 1) * before);
    line = fn(line);
    for (std::int64_t k = 0; k < width; ++k) y[r * width + k] = line[static_cast<std::size_t>(k)];
  }
  return y;
}

std::vector<double> sorted(std::vector<double> line, bool descending) {
  std::sort(line.begin(), line.end());
  if (descending) std::reverse(line.begin(), line.end());
  return line;
}

std::vector<OpRow> order_rows() {
  OpRow order = anything("argsort(Tensor, int, bool)"), sorting = anything("sort(Tensor, int, bool)"), top = anything("topk(Tensor, std::int64_t, int, bool)");
  OpRow largest = anything("max(Tensor, int, bool)"), least = anything("min(Tensor, int, bool)"), hot{.declaration = "one_hot(Tensor, std::int64_t)", .second = Second::kNone};
  OpRow found = anything("nonzero(Tensor)");
  order.second = found.second = Second::kNone;
  for (const bool down : {false, true}) {
    order.cases.push_back(moving({3, 5}, [down](const Tensor& x) { return argsort(x, -1, down); }, [down](const Array& x) {
      return by_line(x, 5, [down](const std::vector<double>& line) {
        std::vector<std::size_t> at(line.size());
        std::iota(at.begin(), at.end(), 0);
        std::stable_sort(at.begin(), at.end(), [&](auto a, auto b) { return down ? line[a] > line[b] : line[a] < line[b]; });
        return std::vector<double>(at.begin(), at.end());
      });
    }));
    sorting.cases.push_back(moving({2, 3, 4}, [down](const Tensor& x) { return sort(x, 2, down).values; }, [down](const Array& x) { return by_line(x, 4, [down](auto line) { return sorted(line, down); }); }));
    top.cases.push_back(moving({3, 5}, [down](const Tensor& x) { return topk(x, 2, 1, down).values; }, [down](const Array& x) { return by_line(x, 2, [down](auto line) { return sorted(line, down); }); }));
  }
  sorting.cases.push_back(moving({4}, [](const Tensor& x) { return sort(x).values; }, [](const Array& x) { return by_line(x, 4, [](auto line) { return sorted(line, false); }); }));
  top.bad.push_back({[] { topk(Tensor::zeros({2, 3}), 4); }, {"topk:", "4", "(2, 3)"}});
  largest.cases.push_back(moving({3, 4}, [](const Tensor& x) { return max(x, 1, true).values; }, [](const Array& x) { return by_line(x, 1, [](auto line) { return sorted(line, true); }); }));
  least.cases.push_back(moving({3, 4}, [](const Tensor& x) { return unsqueeze(min(x, 1).values, 1); }, [](const Array& x) { return by_line(x, 1, [](auto line) { return sorted(line, false); }); }));
  largest.bad.push_back({[] { max(Tensor::zeros({}), 1); }, {"max:", "dimension 1"}});
  hot.cases.push_back({"labels", {label({2, 3}, 4)}, [](const Tensors& in) { return one_hot(in[0], 4); }, [](const Arrays& in) {
                         return made({2, 3, 4}, [&](const Index& i) { return in[0].at({i[0], i[1]}) == static_cast<double>(i[2]); });
                       }});
  hot.bad.push_back({[] { one_hot(Tensor::full({2}, 3, DType::kInt64), 3); }, {"one_hot:", "index 3", "0..2"}});
  hot.takes = Takes::kAnything;
  found.cases.push_back(moving({2, 3}, [](const Tensor& x) { return nonzero(x.defined() ? eq(x, x) : x); }, [](const Array&) { return made({6, 2}, [](const Index& i) { return static_cast<double>(i[1] ? i[0] % 3 : i[0] / 3); }); }));
  return {order, sorting, top, largest, least, hot, found};
}

std::vector<OpRow> arrange_rows() {
  OpRow one = anything("select(Tensor, int, std::int64_t)"), pile = anything("stack(std::vector<Tensor>, int)"), times = anything("repeat(Tensor, Shape)");
  OpRow turned = anything("flip(Tensor, std::vector<int>)"), rolled = anything("roll(Tensor, std::int64_t, int)"), framed = anything("pad(Tensor, std::vector<std::int64_t>, Scalar)");
  OpRow windows = anything("unfold(Tensor, int, std::int64_t, std::int64_t)"), lower = anything("tril(Tensor, std::int64_t)"), upper = anything("triu(Tensor, std::int64_t)");
  OpRow line = anything("diagonal(Tensor, std::int64_t, int, int)"), product = numbers("outer(Tensor, Tensor)");
  one.cases.push_back(moving({2, 3, 4}, [](const Tensor& x) { return select(x, 1, -1); }, [](const Array& x) { return made({2, 4}, [&](const Index& i) { return x.at({i[0], 2, i[1]}); }); }));
  one.bad.push_back({[] { select(Tensor::zeros({2, 3}), 1, 3); }, {"select:", "index 3", "(2, 3)"}});
  pile.cases.push_back({"last", {{{2, 3}}, {{2, 3}}}, [](const Tensors& in) { return stack(in, -1); }, [](const Arrays& in) { return made({2, 3, 2}, [&](const Index& i) { return in[u(static_cast<int>(i[2]))].at({i[0], i[1]}); }); }});
  pile.bad.push_back({[] { stack({Tensor::zeros({2}), Tensor::zeros({3})}); }, {"stack:", "(2)", "(3)"}});
  times.cases.push_back(moving({2, 3}, [](const Tensor& x) { return repeat(x, {2, 1, 3}); }, [](const Array& x) { return made({2, 2, 9}, [&](const Index& i) { return x.at({i[1], i[2] % 3}); }); }));
  times.cases.push_back(moving({2, 1, 2, 3}, [](const Tensor& x) { return repeat(x, {2, 2, 2, 2, 3}); }, [](const Array& x) { return made({2, 4, 2, 4, 9}, [&](const Index& i) { return x.at({i[1] % 2, 0, i[3] % 2, i[4] % 3}); }); }));
  times.cases.push_back(moving({2, 2, 2, 2, 2}, [](const Tensor& x) { return repeat(x, {2, 2, 2, 2, 2}); }, [](const Array& x) { return made({4, 4, 4, 4, 4}, [&](const Index& i) { return x.at({i[0] % 2, i[1] % 2, i[2] % 2, i[3] % 2, i[4] % 2}); }); }));
  times.bad.push_back({[] { repeat(Tensor::zeros({2, 3}), {2}); }, {"repeat:", "(2, 3)"}});
  turned.cases.push_back(moving({2, 3}, [](const Tensor& x) { return flip(x, {0, -1}); }, [](const Array& x) { return made({2, 3}, [&](const Index& i) { return x.at({1 - i[0], 2 - i[1]}); }); }));
  turned.bad.push_back({[] { flip(Tensor::zeros({2, 3}), {2}); }, {"flip:", "dimension 2"}});
  for (const std::int64_t by : {1, -1, 7})
    rolled.cases.push_back(moving({2, 5}, [by](const Tensor& x) { return roll(x, by, 1); }, [by](const Array& x) { return made({2, 5}, [&](const Index& i) { return x.at({i[0], ((i[1] - by) % 5 + 5) % 5}); }); }));
  framed.cases.push_back(moving({2, 3}, [](const Tensor& x) { return pad(x, {1, 2, 0, 1}, 1); }, [](const Array& x) {
    return made({3, 6}, [&](const Index& i) { return i[0] < 2 && i[1] >= 1 && i[1] < 4 ? x.at({i[0], i[1] - 1}) : 1; });
  }));
  framed.cases.push_back(moving({2, 3}, [](const Tensor& x) { return pad(x, {-1, 1}); }, [](const Array& x) { return made({2, 3}, [&](const Index& i) { return i[1] < 2 ? x.at({i[0], i[1] + 1}) : 0; }); }));
  framed.bad.push_back({[] { pad(Tensor::zeros({2}), {1}); }, {"pad:", "1 numbers", "(2)"}});
  for (const std::int64_t step : {1, 2, 3})
    windows.cases.push_back(moving({7, 2}, [step](const Tensor& x) { return x.defined() && x.dtype() == DType::kBool ? to(unfold(to(x, DType::kUInt8), 0, 3, step), DType::kBool) : unfold(x, 0, 3, step); },
                                   [step](const Array& x) { return made({(7 - 3) / step + 1, 2, 3}, [&](const Index& i) { return x.at({i[0] * step + i[2], i[1]}); }); }));
  windows.bad.push_back({[] { unfold(Tensor::zeros({2}), 0, 3, 1); }, {"unfold:", "3", "(2)"}});
  for (const std::int64_t k : {-1, 0, 1}) {
    lower.cases.push_back(moving({2, 3, 4}, [k](const Tensor& x) { return tril(x, k); }, [k](const Array& x) { return made({2, 3, 4}, [&](const Index& i) { return i[2] - i[1] <= k ? x.at(i) : 0; }); }));
    upper.cases.push_back(moving({3, 3}, [k](const Tensor& x) { return triu(x, k); }, [k](const Array& x) { return made({3, 3}, [&](const Index& i) { return i[1] - i[0] >= k ? x.at(i) : 0; }); }));
    line.cases.push_back(moving({2, 3, 4}, [k](const Tensor& x) { return diagonal(x, k, 1, 2); }, [k](const Array& x) {
      return made({2, k < 0 ? 2 : 3}, [&](const Index& i) { return x.at({i[0], i[1] + std::max<std::int64_t>(0, -k), i[1] + std::max<std::int64_t>(0, k)}); });
    }));
  }
  lower.bad.push_back({[] { tril(Tensor::zeros({2})); }, {"tril:", "(2)"}});
  line.bad.push_back({[] { diagonal(Tensor::zeros({2, 2}), 0, 1, -1); }, {"diagonal:", "dimension 1"}});
  product.cases.push_back({"vectors", {{{3}}, {{2}}}, [](const Tensors& in) { return outer(in[0], in[1]); }, [](const Arrays& in) { return made({3, 2}, [&](const Index& i) { return in[0][i[0]] * in[1][i[1]]; }); }});
  product.bad.push_back({[] { outer(Tensor::zeros({2, 2}), Tensor::zeros({2})); }, {"outer:", "(2, 2)"}});
  return {one, pile, times, turned, rolled, framed, windows, lower, upper, line, product};
}

std::vector<OpRow> split_rows() {
  OpRow even = anything("split(Tensor, std::int64_t, int)"), uneven = anything("split(Tensor, std::vector<std::int64_t>, int)"), chunks = anything("chunk(Tensor, std::int64_t, int)");
  // Join the parts in another order, so that wrong sizes give a wrong result.
  const auto joined = [](const std::vector<Tensor>& parts) { return cat({parts[1], parts[0]}, 0); };
  const auto swapped = [](std::int64_t first, std::int64_t second) {
    return [=](const Array& x) { return made({first + second, 2}, [&](const Index& i) { return x.at({i[0] < second ? i[0] + first : i[0] - second, i[1]}); }); };
  };
  even.cases.push_back(moving({5, 2}, [joined](const Tensor& x) { return joined(split(x, 3)); }, swapped(3, 2)));
  uneven.cases.push_back(moving({5, 2}, [joined](const Tensor& x) { return joined(split(x, std::vector<std::int64_t>{1, 4})); }, swapped(1, 4)));
  chunks.cases.push_back(moving({5, 2}, [joined](const Tensor& x) { return joined(chunk(x, 2)); }, swapped(3, 2)));
  uneven.bad.push_back({[] { split(Tensor::zeros({5}), std::vector<std::int64_t>{1, 3}); }, {"split:", "4", "5"}});
  even.bad.push_back({[] { split(Tensor::zeros({5}), 0); }, {"split:", "size 0"}});
  chunks.bad.push_back({[] { chunk(Tensor::zeros({5}), 0); }, {"chunk:", "0 parts"}});
  return {even, uneven, chunks};
}

std::vector<OpRow> create_rows() {
  OpRow range{.declaration = "arange(Scalar, Scalar, Scalar, DType, Device)", .second = Second::kNone, .takes = Takes::kAnything}, line = range, unit = range;
  line.declaration = "linspace(Scalar, Scalar, std::int64_t, DType, Device)";
  unit.declaration = "eye(std::int64_t, std::int64_t, DType, Device)";
  const Input shape{{1}, -1, 1, Kind::kPlaceholder};
  range.cases.push_back({"down", {shape}, [](const Tensors& in) { return arange(8, -1.5, -2, in[0].dtype()); }, [](const Arrays&) { return made({5}, [](const Index& i) { return 8 - 2 * static_cast<double>(i[0]); }); }});
  range.bad.push_back({[] { arange(0, 1, 0); }, {"arange:", "step"}});
  line.cases.push_back({"up", {shape}, [](const Tensors& in) { return to(linspace(0, 4, 5, DType::kFloat64), in[0].dtype()); }, [](const Arrays&) { return made({5}, [](const Index& i) { return static_cast<double>(i[0]); }); }});
  line.bad.push_back({[] { linspace(0, 1, -1); }, {"linspace:", "-1"}});
  unit.cases.push_back({"wide", {shape}, [](const Tensors& in) { return eye(2, 3, in[0].dtype()); }, [](const Arrays&) { return made({2, 3}, [](const Index& i) { return i[0] == i[1]; }); }});
  return {range, line, unit};
}

}  // namespace

std::vector<OpRow> index_rows() {
  std::vector<OpRow> rows;
  for (const auto& part : {gather_rows(), scatter_rows(), pick_rows(), order_rows(), arrange_rows(), split_rows(), create_rows()}) rows.insert(rows.end(), part.begin(), part.end());
  return rows;
}

}  // namespace trireme::test
