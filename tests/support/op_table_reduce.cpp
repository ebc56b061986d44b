// A row is a line, however long.
// clang-format off
// Op test table: reductions.
#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/support/op_table.h"

namespace trireme::test {

namespace {

/// Reduces `dims` (all if empty) of x by `join` from `start`.
Array reduce(const Array& x, const std::vector<int>& dims, bool keepdim, double start,
             const std::function<double(double, double)>& join) {
  Shape kept, shape;
  for (int d = 0; d < x.shape.size(); ++d) {
    const bool gone = dims.empty() || std::any_of(dims.begin(), dims.end(), [&](int one) {
                        return (one < 0 ? one + x.shape.size() : one) == d;
                      });
    kept.push_back(gone ? 1 : x.shape[d]);
    if (!gone || keepdim) shape.push_back(kept[d]);
  }
  Array y(kept, start);
  for (std::int64_t i = 0; i < x.size(); ++i) {
    std::int64_t at = 0;
    const auto index = index_of(i, x.shape);
    for (int d = 0; d < kept.size(); ++d) at = at * kept[d] + (kept[d] == 1 ? 0 : index[static_cast<std::size_t>(d)]);
    y[at] = join(y[at], x[i]);
  }
  return same_order(y, shape);
}

struct Reduction {
  Shape shape;
  std::vector<int> dims;
  bool keepdim;
};

using Unary = std::function<double(double)>;
using ReduceCall = std::function<Tensor(const Tensor&, const std::vector<int>&, bool)>;

OpRow reduce_row(const std::string& name, ReduceCall op, Takes takes,
                 const std::function<Array(const Array&, const Reduction&)>& reference, bool takes_empty) {
  OpRow row{.declaration = name + "(Tensor, std::vector<int>, bool)", .takes = takes};
  std::vector<Reduction> all{{{3, 4}, {}, false},       {{3, 4}, {0}, false},     {{3, 4}, {1}, true},
                             {{2, 3, 4}, {0, 2}, true}, {{2, 3, 4}, {-2}, false}, {{2, 3, 2, 2}, {0, 2, 3}, false},
                             {{}, {}, false},           {{2, 1, 3}, {1}, false},  {{2, 3, 2, 2}, {1, 3}, true},
                             {{1, 17}, {-1}, false},    {{0, 3}, {1}, false}};
  if (takes_empty) all.insert(all.end(), {{{0, 3}, {0}, false}, {{0}, {}, true}});
  for (const Reduction& r : all)
    row.cases.push_back({r.shape.to_string(), {{r.shape}}, [op, r](const Tensors& in) { return op(in[0], r.dims, r.keepdim); },
                         [reference, r](const Arrays& in) { return reference(in[0], r); }});
  row.bad.push_back({[op] { op(Tensor::zeros({2, 3}), {2}, false); }, {name + ":", "dimension 2"}});
  row.bad.push_back({[op] { op(Tensor::zeros({2, 3}), {0, -2}, false); }, {name + ":", "twice"}});
  return row;
}

double plus(double x, double y) { return x + y; }

Array total(const Array& x, const Reduction& r) { return reduce(x, r.dims, r.keepdim, 0, plus); }

std::function<Array(const Array&, const Reduction&)> fold(double start, const std::function<double(double, double)>& join) {
  return [start, join](const Array& x, const Reduction& r) { return reduce(x, r.dims, r.keepdim, start, join); };
}

Array each(Array x, const Unary& fn) {
  for (double& v : x.values) v = fn(v);
  return x;
}

constexpr double inf = std::numeric_limits<double>::infinity();

std::vector<OpRow> sum_rows() {
  OpRow averages = reduce_row("mean", mean, Takes::kFloating, [](const Array& x, const Reduction& r) {
    Array y = total(x, r);
    for (double& v : y.values) v = v / (static_cast<double>(x.size()) / static_cast<double>(y.size()));
    return y;
  }, false);
  OpRow products = reduce_row("prod", prod, Takes::kAnything, fold(1, [](double a, double b) { return a * b; }), true);
  products.cases.push_back({"one zero", {{{2, 3}}},
                            [](const Tensors& in) { return prod(mul(in[0], beside(in, to(Tensor::from(std::vector<double>{0, 1, 1, 1, 1, 1}, {2, 3}), in[0].dtype()))), {1}, false); },
                            [](const Arrays& in) { Array x = in[0]; x[0] = 0; return reduce(x, {1}, false, 1, [](double a, double b) { return a * b; }); }});

  OpRow back{.declaration = "sum_to(Tensor, Shape)", .takes = Takes::kAnything};
  for (const auto& [from, to, dims] : {std::tuple{Shape{2, 3, 4}, Shape{3, 1}, std::vector<int>{0, 2}}, {Shape{2, 3}, Shape{}, {0, 1}},
                                       {Shape{0, 3}, Shape{1, 3}, {0}}, {Shape{2, 3}, Shape{3}, {0}}})
    back.cases.push_back(moving(from, [to = to](const Tensor& x) { return sum_to(x, to); },
                                [to = to, dims = dims](const Array& x) { return same_order(reduce(x, dims, true, 0, plus), to); }));
  back.cases.push_back(moving({2, 3}, [](const Tensor& x) { return sum_to(x, {2, 3}); }, [](const Array& x) { return x; }));
  back.bad.push_back({[] { sum_to(Tensor::zeros({2, 3}), {2, 2}); }, {"sum_to:", "(2, 3)", "(2, 2)"}});
  return {reduce_row("sum", sum, Takes::kAnything, total, true), averages, products, back};
}

std::vector<OpRow> extreme_rows() {
  OpRow largest = reduce_row("amax", amax, Takes::kNumbers, [](const Array& x, const Reduction& r) {
    return reduce(x, r.dims, r.keepdim, -std::numeric_limits<double>::infinity(), [](double a, double b) { return std::fmax(a, b); });
  }, false);
  largest.bad.push_back({[] { amax(Tensor::zeros({0, 3}), {0}); }, {"amax:", "(0, 3)"}});

  OpRow smallest = reduce_row("amin", amin, Takes::kNumbers, fold(inf, [](double a, double b) { return std::fmin(a, b); }), false);
  const auto truth = [](bool all) {
    return [all](const Array& x, const Reduction& r) {
      return reduce(x, r.dims, r.keepdim, all, [all](double a, double b) { return all ? a != 0 && b != 0 : a != 0 || b != 0; });
    };
  };
  OpRow anys = reduce_row("any", any, Takes::kAnything, truth(false), true), alls = reduce_row("all", all, Takes::kAnything, truth(true), true);
  anys.second = alls.second = Second::kNone;

  return {largest, smallest, anys, alls};
}

Array variance_of(const Array& x, const Reduction& r, double correction) {
  const Array sums = total(x, {r.shape, r.dims, true}), squares = total(each(x, [](double v) { return v * v; }), {r.shape, r.dims, true});
  Array y = total(x, r);
  const double n = static_cast<double>(x.size()) / static_cast<double>(std::max<std::int64_t>(1, y.size()));
  for (std::int64_t i = 0; i < y.size(); ++i) y[i] = (squares[i] - sums[i] * sums[i] / n) / (n - correction);
  return y;
}

std::vector<OpRow> spread_rows() {
  const auto spread = [](const char* name, bool root) {
    OpRow row{.declaration = std::string(name) + "(Tensor, std::vector<int>, double, bool)", .float32_tolerance = 1e-4};
    for (const Reduction& r : {Reduction{{3, 4}, {}, false}, {{3, 4}, {0}, true}, {{2, 3, 4}, {0, -1}, false}})
      for (const double correction : {0.0, 1.0})
        row.cases.push_back({r.shape.to_string(), {{r.shape}},
                             [=](const Tensors& in) { return root ? std(in[0], r.dims, correction, r.keepdim) : var(in[0], r.dims, correction, r.keepdim); },
                             [=](const Arrays& in) { return each(variance_of(in[0], r, correction), [root](double v) { return root ? std::sqrt(v) : v; }); }});
    return row;
  };
  OpRow norms{.declaration = "norm(Tensor, double, std::vector<int>, bool)"};
  for (const double p : {1.0, 2.0, 3.0, inf})
    for (const Reduction& r : {Reduction{{3, 4}, {}, false}, {{2, 3, 4}, {0, -1}, true}})
      norms.cases.push_back({std::to_string(p), {{r.shape}}, [=](const Tensors& in) { return norm(in[0], p, r.dims, r.keepdim); },
                             [=](const Arrays& in) {
                               const Array x = each(in[0], [](double v) { return std::fabs(v); });
                               if (std::isinf(p)) return reduce(x, r.dims, r.keepdim, 0, [](double a, double b) { return std::fmax(a, b); });
                               return each(total(each(x, [p](double v) { return std::pow(v, p); }), r), [p](double v) { return std::pow(v, 1 / p); });
                             }});
  norms.bad.push_back({[] { norm(Tensor::zeros({2}), std::nan("")); }, {"norm:", "NaN"}});
  OpRow sums = reduce_row("logsumexp", logsumexp, Takes::kFloating, [=](const Array& x, const Reduction& r) {
    return each(total(each(x, [](double v) { return std::exp(v); }), r), [](double v) { return std::log(v); });
  }, false);
  return {spread("var", false), spread("std", true), norms, sums};
}

Array along(const Array& x, int dim, bool keepdim, const std::function<double(const std::vector<double>&)>& fn) {
    const int d = dim < 0 ? dim + x.shape.size() : dim;
    Shape kept = x.shape, shape = x.shape;
    kept[d] = 1;
    if (!keepdim) shape.erase(d);
    Array y(kept);
    for (std::int64_t i = 0; i < y.size(); ++i) {
      auto at = index_of(i, kept);
      std::vector<double> line;
      for (std::int64_t k = 0; k < x.shape[d]; ++k) { at[static_cast<std::size_t>(d)] = k; line.push_back(x.at(at)); }
      y[i] = fn(line);
    }
    return same_order(y, keepdim ? kept : shape);
}

std::vector<OpRow> along_rows() {
  const auto first = [](bool largest) {
    return [largest](const std::vector<double>& line) {
      const auto at = largest ? std::max_element(line.begin(), line.end()) : std::min_element(line.begin(), line.end());
      return static_cast<double>(at - line.begin());
    };
  };
  OpRow where{.declaration = "argmax(Tensor, int, bool)", .second = Second::kNone, .takes = Takes::kAnything}, least = where;
  least.declaration = "argmin(Tensor, int, bool)";
  for (const auto& [shape, dim, keep] : {std::tuple{Shape{3, 4}, -1, false}, {Shape{5}, 0, true}, {Shape{2, 3, 2}, 1, false}, {Shape{0, 3}, 1, false}, {Shape{3, 1}, 0, true}}) {
    where.cases.push_back(moving(shape, [dim = dim, keep = keep](const Tensor& x) { return argmax(x, dim, keep); },
                                 [=, dim = dim, keep = keep](const Array& x) { return along(x, dim, keep, first(true)); }));
    least.cases.push_back(moving(shape, [dim = dim, keep = keep](const Tensor& x) { return argmin(x, dim, keep); },
                                 [=, dim = dim, keep = keep](const Array& x) { return along(x, dim, keep, first(false)); }));
  }
  where.bad.push_back({[] { argmax(Tensor::zeros({3, 0})); }, {"argmax:", "(3, 0)"}});
  OpRow running{.declaration = "cumsum(Tensor, int)", .takes = Takes::kAnything};
  for (const auto& [shape, dim] : {std::pair{Shape{3, 4}, 1}, {Shape{2, 3, 2}, -2}, {Shape{4}, 0}, {Shape{0, 2}, 1}})
    running.cases.push_back(moving(shape, [dim = dim](const Tensor& x) { return cumsum(x, dim); }, [dim = dim](const Array& x) {
      const int d = dim < 0 ? dim + x.shape.size() : dim;
      Array y = x;
      for (std::int64_t i = 0; i < y.size(); ++i) {
        auto at = index_of(i, x.shape);
        double sum = 0;
        for (std::int64_t k = at[static_cast<std::size_t>(d)]; k >= 0; --k) { at[static_cast<std::size_t>(d)] = k; sum += x.at(at); }
        y[i] = sum;
      }
      return y;
    }));

  return {where, least, running};
}

}  // namespace

std::vector<OpRow> reduce_rows() {
  std::vector<OpRow> rows;
  for (const auto& part : {sum_rows(), extreme_rows(), spread_rows(), along_rows()}) rows.insert(rows.end(), part.begin(), part.end());
  return rows;
}

}  // namespace trireme::test
