// A row is a line, however long.
// clang-format off
// Op test table: elementwise ops, comparisons and in-place ops.
#include <cmath>

#include "tests/support/op_table.h"

namespace trireme::test {

namespace {

using Unary = std::function<double(double)>;
using Binary = std::function<double(double, double)>;
using UnaryCall = Tensor (*)(const Tensor&);
using BinaryCall = Tensor (*)(const Tensor&, const Tensor&);

Array map(const Array& x, const Unary& fn) {
  Array y(x.shape);
  for (std::int64_t i = 0; i < x.size(); ++i) y[i] = fn(x[i]);
  return y;
}

Array map(const Array& a, const Array& b, const Shape& shape, const Binary& fn) {
  Array y(shape);
  for (std::int64_t i = 0; i < y.size(); ++i) {
    const auto index = index_of(i, shape);
    y[i] = fn(a.at(index), b.at(index));
  }
  return y;
}

OpRow unary_row(const std::string& name, const std::function<Tensor(const Tensor&)>& op, const Unary& fn, double low,
                double high, const std::string& arguments = "(Tensor)", Takes takes = Takes::kFloating) {
  OpRow row{.declaration = name + arguments, .takes = takes};
  const auto call = [op](const Tensors& in) { return op(in[0]); };
  const auto reference = [fn](const Arrays& in) { return map(in[0], fn); };
  for (const Shape& shape : {Shape{3, 4}, Shape{}, Shape{0, 3}, Shape{2, 3, 2, 2}, Shape{1, 1}})
    row.cases.push_back({shape.to_string(), {{shape, low, high}}, call, reference});
  return row;
}

struct Shapes {
  Shape a, b, out;
};

OpRow binary_row(const std::string& name, BinaryCall op, const Binary& fn, double low, double high, Takes takes) {
  OpRow row{.declaration = name + "(Tensor, Tensor)", .takes = takes};
  for (const Shapes& s : {Shapes{{3, 4}, {3, 4}, {3, 4}}, Shapes{{2, 3, 4}, {3, 1}, {2, 3, 4}}, Shapes{{4}, {3, 1}, {3, 4}},
                          Shapes{{}, {2, 2}, {2, 2}}, Shapes{{}, {}, {}}, Shapes{{0, 3}, {1, 3}, {0, 3}}, Shapes{{3, 0}, {1}, {3, 0}},
                          Shapes{{2, 3, 2, 2}, {1, 3, 1, 1}, {2, 3, 2, 2}}, Shapes{{1, 5}, {5, 1}, {5, 5}}})
    row.cases.push_back({s.a.to_string() + " " + s.b.to_string(),
                         {{s.a, low, high}, {s.b, low, high}},
                         [op](const Tensors& in) { return op(in[0], in[1]); },
                         [fn, s](const Arrays& in) { return map(in[0], in[1], s.out, fn); }});
  static const std::string operators = "operator";
  const std::string shown = name == "operator+" ? "add" : name == "operator-" ? "sub" : name == "operator*" ? "mul"
                            : name == "operator/" ? "div" : name;
  row.bad.push_back({[op] { op(Tensor::zeros({2, 3}), Tensor::zeros({4, 3})); }, {shown + ":", "(2, 3)", "(4, 3)"}});
  row.bad.push_back({[op] { op(Tensor::zeros({2}), Tensor::zeros({2}, DType::kFloat64)); }, {shown + ":", "float32", "float64"}});
  return row;
}

OpRow compare_row(const std::string& name, BinaryCall op, const Binary& fn) {
  OpRow row = binary_row(name, op, fn, -1, 1, Takes::kAnything);
  row.second = Second::kNone;
  // Equal values, too: the first argument against itself.
  row.cases.push_back({"equal", {{{2, 3}}}, [op](const Tensors& in) { return op(in[0], in[0]); },
                       [fn](const Arrays& in) { return map(in[0], in[0], in[0].shape, fn); }});
  return row;
}

std::vector<OpRow> unary_rows() {
  const Takes numbers = Takes::kNumbers;
  const std::string scalar = "(Tensor, double)";
  std::vector<OpRow> rows{
      unary_row("neg", neg, [](double x) { return -x; }, -1, 1, "(Tensor)", numbers),
      unary_row("operator-", [](const Tensor& x) { return -x; }, [](double x) { return -x; }, -1, 1, "(Tensor)", numbers),
      unary_row("abs", abs, [](double x) { return std::fabs(x); }, -1, 1, "(Tensor)", numbers),
      unary_row("sign", sign, [](double x) { return x > 0 ? 1.0 : x < 0 ? -1.0 : 0.0; }, -1, 1, "(Tensor)", numbers),
      unary_row("exp", exp, [](double x) { return std::exp(x); }, -3, 3),
      unary_row("log", log, [](double x) { return std::log(x); }, 0.2, 5),
      unary_row("sqrt", sqrt, [](double x) { return std::sqrt(x); }, 0.2, 5),
      unary_row("tanh", tanh, [](double x) { return 1 - 2 / (std::exp(2 * x) + 1); }, -3, 3),
      unary_row("sigmoid", sigmoid, [](double x) { return 0.5 * (1 + std::tanh(x / 2)); }, -5, 5),
      unary_row("relu", relu, [](double x) { return std::fmax(x, 0); }, -1, 1, "(Tensor)", numbers),
      unary_row("pow", [](const Tensor& x) { return pow(x, 2.5); }, [](double x) { return x * x * std::sqrt(x); }, 0.2, 3, scalar),
      unary_row("add", [](const Tensor& x) { return add(x, 2.0); }, [](double x) { return x + 2; }, -1, 1, scalar, numbers),
      unary_row("mul", [](const Tensor& x) { return mul(x, 3.0); }, [](double x) { return x * 3; }, -1, 1, scalar, numbers),
      unary_row("operator+", [](const Tensor& x) { return x + 2.0; }, [](double x) { return x + 2; }, -1, 1, scalar, numbers),
      unary_row("operator-", [](const Tensor& x) { return x - 1.0; }, [](double x) { return x - 1; }, -1, 1, scalar, numbers),
      unary_row("operator*", [](const Tensor& x) { return x * 3.0; }, [](double x) { return x * 3; }, -1, 1, scalar, numbers),
      unary_row("operator/", [](const Tensor& x) { return x / 1.0; }, [](double x) { return x; }, -1, 1, scalar, numbers)};
  for (OpRow& row : rows)
    if (row.name() == "sign") row.second = Second::kNone;
  const auto whole = [](const char* what, auto call) { return BadCall{call, {what, "0.5", "int64"}}; };
  const auto ints = [] { return Tensor::zeros({2}, DType::kInt64); };
  for (OpRow& row : rows) {
    if (row.declaration == "add(Tensor, double)") row.bad.push_back(whole("add:", [ints] { add(ints(), 0.5); }));
    if (row.declaration == "mul(Tensor, double)") row.bad.push_back(whole("mul:", [ints] { mul(ints(), 0.5); }));
    if (row.name() == "pow")
      for (const double exponent : {0.0, 1.0, 2.0, -1.0})
        row.cases.push_back({"exponent", {{{2, 3}, 0.5, 2}}, [exponent](const Tensors& in) { return pow(in[0], exponent); },
                             [exponent](const Arrays& in) { return map(in[0], [exponent](double x) { return std::pow(x, exponent); }); }});
  }
  return rows;
}

/// What an in-place op may write to: a result of its own, with the history of x.
Tensor fresh(const Tensor& x) { return !x.defined() ? x : is_floating(x.dtype()) ? mul(x, 1.0) : x.clone(); }

template <class Op>
OpRow in_place_binary(const std::string& name, Op op, const Binary& fn, Takes takes) {
  OpRow row{.declaration = name + "(Tensor, Tensor)", .takes = takes};
  for (const Shapes& s : {Shapes{{3, 4}, {3, 4}, {3, 4}}, Shapes{{2, 3, 4}, {3, 1}, {2, 3, 4}}, Shapes{{2, 2}, {}, {2, 2}},
                          Shapes{{}, {}, {}}, Shapes{{0, 3}, {3}, {0, 3}}, Shapes{{2, 3, 2, 2}, {3, 1, 1}, {2, 3, 2, 2}}})
    row.cases.push_back({s.a.to_string() + " " + s.b.to_string(),
                         {{s.a}, {s.b}},
                         [op](const Tensors& in) { return op(fresh(in[0]), in[1]); },
                         [fn, s](const Arrays& in) { return map(in[0], in[1], s.out, fn); }});
  row.cases.push_back({"itself", {{{2, 3}}},
                       [op](const Tensors& in) {
                         const Tensor t = fresh(in[0]);
                         return op(t, t);
                       },
                       [fn](const Arrays& in) { return map(in[0], in[0], in[0].shape, fn); }});
  row.bad.push_back({[op] { op(Tensor::zeros({3}), Tensor::zeros({2, 3})); }, {name.substr(0, 4), "(3)", "(2, 3)"}});
  return row;
}

}  // namespace

std::vector<OpRow> elementwise_rows() {
  const Takes numbers = Takes::kNumbers, floating = Takes::kFloating;
  const auto plus = [](double x, double y) { return x + y; };
  const auto minus = [](double x, double y) { return x - y; };
  const auto times = [](double x, double y) { return x * y; };
  const auto over = [](double x, double y) { return x / y; };
  std::vector<OpRow> rows{
      binary_row("add", add, plus, -1, 1, numbers),
      binary_row("sub", sub, minus, -1, 1, numbers),
      binary_row("mul", mul, times, -1, 1, numbers),
      binary_row("div", div, over, 0.5, 2, floating),
      binary_row("operator+", operator+, plus, -1, 1, numbers),
      binary_row("operator-", operator-, minus, -1, 1, numbers),
      binary_row("operator*", operator*, times, -1, 1, numbers),
      binary_row("operator/", operator/, over, 0.5, 2, floating),
      binary_row("maximum", maximum, [](double x, double y) { return std::fmax(x, y); }, -1, 1, numbers),
      binary_row("minimum", minimum, [](double x, double y) { return std::fmin(x, y); }, -1, 1, numbers),
      compare_row("eq", eq, [](double x, double y) { return x == y; }),
      compare_row("ne", ne, [](double x, double y) { return x != y; }),
      compare_row("lt", lt, [](double x, double y) { return x < y; }),
      compare_row("le", le, [](double x, double y) { return x <= y; }),
      compare_row("gt", gt, [](double x, double y) { return x > y; }),
      compare_row("ge", ge, [](double x, double y) { return x >= y; })};
  for (OpRow& row : unary_rows()) rows.push_back(row);
  return rows;
}

std::vector<OpRow> in_place_rows() {
  using TensorOp = const Tensor& (*)(const Tensor&, const Tensor&);
  using ScalarOp = const Tensor& (*)(const Tensor&, double);
  const auto scalar_row = [](const std::string& name, ScalarOp op, double value, const Unary& fn, Takes takes) {
    OpRow row{.declaration = name + "(Tensor, double)", .takes = takes};
    for (const Shape& shape : {Shape{3, 4}, Shape{}, Shape{0, 2}, Shape{2, 3, 2, 2}})
      row.cases.push_back({shape.to_string(), {{shape}}, [op, value](const Tensors& in) { return op(fresh(in[0]), value); },
                           [fn](const Arrays& in) { return map(in[0], fn); }});
    return row;
  };
  std::vector<OpRow> rows{
      in_place_binary("add_", TensorOp(add_), [](double x, double y) { return x + y; }, Takes::kNumbers),
      in_place_binary("mul_", TensorOp(mul_), [](double x, double y) { return x * y; }, Takes::kNumbers),
      in_place_binary("copy_", TensorOp(copy_), [](double, double y) { return y; }, Takes::kAnything),
      scalar_row("mul_", ScalarOp(mul_), 3, [](double x) { return 3 * x; }, Takes::kNumbers),
      scalar_row("fill_", ScalarOp(fill_), 1, [](double) { return 1.0; }, Takes::kAnything)};
  rows[3].bad.push_back({[] { mul_(Tensor::zeros({2}, DType::kInt64), 0.5); }, {"mul_:", "0.5", "int64"}});
  for (OpRow& row : rows)  // the copy of the argument that is written to is an op of its own
    if (row.name() == "add_" || row.declaration == "mul_(Tensor, Tensor)")
      row.bad.push_back({[name = row.name()] {
                           name == "add_" ? add_(Tensor::zeros({2}), Tensor::zeros({2}, DType::kInt64))
                                          : mul_(Tensor::zeros({2}), Tensor::zeros({2}, DType::kInt64));
                         },
                         {row.name() + ":", "float32", "int64"}});
  return rows;
}

}  // namespace trireme::test
