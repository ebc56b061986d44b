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
  const std::string shown = name == "operator+" ? "add" : name == "operator-" ? "sub" : name == "operator*" ? "mul"
                            : name == "operator/" ? "div" : name;
  row.bad.push_back({[op] { op(Tensor::zeros({2, 3}), Tensor::zeros({4, 3})); }, {shown + ":", "(2, 3)", "(4, 3)"}});
  return row;
}

OpRow compare_row(const std::string& name, BinaryCall op, const Binary& fn) {
  OpRow row = binary_row(name, op, fn, -1, 1, Takes::kAnything);
  row.second = Second::kNone;
  // Test equal values, too, by comparing the first argument with itself.
  row.cases.push_back({"equal", {{{2, 3}}}, [op](const Tensors& in) { return op(in[0], in[0]); },
                       [fn](const Arrays& in) { return map(in[0], in[0], in[0].shape, fn); }});
  return row;
}

/// Adds rows for an op and its in-place form. `expression` computes the reference from a double x.
#define ROW(name, low, high, takes, expression)                                                                          \
  rows.push_back(unary_row(#name, name, [](double x) { return expression; }, low, high, "(Tensor)", Takes::takes));       \
  rows.push_back(unary_row(#name "_", [](const Tensor& x) { return name##_(fresh(x)); }, [](double x) { return expression; }, low, \
                           high, "(Tensor)", Takes::takes == Takes::kPromotes ? Takes::kFloating : Takes::takes));

/// Returns a copy of x that an in-place op may write to. It has x in its autograd history.
Tensor fresh(const Tensor& x) { return !x.defined() ? x : is_floating(x.dtype()) ? mul(x, 1.0) : x.clone(); }

double logistic(double x) { return 0.5 * (1 + std::tanh(x / 2)); }

std::vector<OpRow> unary_rows() {
  std::vector<OpRow> rows;
  ROW(neg, -1, 1, kNumbers, -x)
  ROW(abs, -1, 1, kNumbers, std::fabs(x))
  ROW(sign, -1, 1, kNumbers, x > 0 ? 1.0 : x < 0 ? -1.0 : 0.0)
  ROW(square, -1, 1, kNumbers, x * x)
  ROW(relu, -1, 1, kNumbers, std::fmax(x, 0))
  ROW(exp, -3, 3, kPromotes, std::exp(x))
  ROW(exp2, -3, 3, kPromotes, std::pow(2, x))
  ROW(expm1, -1, 1, kPromotes, std::exp(x) - 1)
  ROW(log, 0.2, 5, kPromotes, std::log(x))
  ROW(log2, 0.2, 5, kPromotes, std::log(x) / std::log(2.0))
  ROW(log10, 0.2, 5, kPromotes, std::log(x) / std::log(10.0))
  ROW(log1p, -0.5, 5, kPromotes, std::log(1 + x))
  ROW(sqrt, 0.2, 5, kPromotes, std::sqrt(x))
  ROW(rsqrt, 0.2, 5, kPromotes, 1 / std::sqrt(x))
  ROW(reciprocal, 0.5, 2, kPromotes, 1 / x)
  ROW(sin, -3, 3, kPromotes, std::sin(x))
  ROW(cos, -3, 3, kPromotes, std::cos(x))
  ROW(tan, -1, 1, kPromotes, std::sin(x) / std::cos(x))
  ROW(asin, -0.8, 0.8, kPromotes, std::atan2(x, std::sqrt(1 - x * x)))
  ROW(acos, -0.8, 0.8, kPromotes, std::atan2(std::sqrt(1 - x * x), x))
  ROW(atan, -2, 2, kPromotes, std::atan2(x, 1))
  ROW(sinh, -2, 2, kPromotes, (std::exp(x) - std::exp(-x)) / 2)
  ROW(cosh, -2, 2, kPromotes, (std::exp(x) + std::exp(-x)) / 2)
  ROW(tanh, -3, 3, kPromotes, 1 - 2 / (std::exp(2 * x) + 1))
  ROW(erf, -2, 2, kPromotes, 1 - std::erfc(x))
  ROW(erfc, -2, 2, kPromotes, 1 - std::erf(x))
  ROW(floor, -3, 3, kNumbers, x - std::fmod(x, 1) - (std::fmod(x, 1) < 0 ? 1 : 0))
  ROW(ceil, -3, 3, kNumbers, -std::floor(-x))
  ROW(round, -3, 3, kNumbers, std::floor(x + 0.5))
  ROW(trunc, -3, 3, kNumbers, x - std::fmod(x, 1))
  ROW(sigmoid, -5, 5, kPromotes, logistic(x))
  ROW(log_sigmoid, -5, 5, kPromotes, std::log(logistic(x)))
  ROW(softplus, -5, 5, kPromotes, std::log(1 + std::exp(x)))
  ROW(silu, -5, 5, kPromotes, x * logistic(x))
  return rows;
}

std::vector<OpRow> scalar_rows() {
  const auto numbers = Takes::kNumbers, promotes = Takes::kPromotes, mixed = Takes::kAnything;
  const auto row = [](const char* name, const std::function<Tensor(const Tensor&)>& op, const Unary& fn, double low, double high,
                      const char* arguments, Takes takes) { return unary_row(name, op, fn, low, high, arguments, takes); };
  const char *after = "(Tensor, Scalar)", *before = "(Scalar, Tensor)", *slope = "(Tensor, double)";
  const char* bounds = "(Tensor, std::optional<Scalar>, std::optional<Scalar>)";
  const double k = std::sqrt(2 / 3.14159265358979323846);
  std::vector<OpRow> rows{
      row("pow", [](const Tensor& x) { return pow(x, 2.5); }, [](double x) { return x * x * std::sqrt(x); }, 0.2, 3, after, promotes),
      row("pow", [](const Tensor& x) { return pow(2.5, x); }, [](double x) { return std::exp(x * std::log(2.5)); }, -2, 2, before, promotes),
      row("add", [](const Tensor& x) { return add(x, 2.0); }, [](double x) { return x + 2; }, -1, 1, after, mixed),
      row("sub", [](const Tensor& x) { return sub(x, 2.0); }, [](double x) { return x - 2; }, -1, 1, after, mixed),
      row("rsub", [](const Tensor& x) { return rsub(x, 9.0); }, [](double x) { return 9 - x; }, -1, 1, after, mixed),
      row("mul", [](const Tensor& x) { return mul(x, 3.0); }, [](double x) { return x * 3; }, -1, 1, after, mixed),
      row("div", [](const Tensor& x) { return div(x, 4.0); }, [](double x) { return x / 4; }, -1, 1, after, promotes),
      row("operator+", [](const Tensor& x) { return x + 2.0; }, [](double x) { return x + 2; }, -1, 1, after, mixed),
      row("operator-", [](const Tensor& x) { return x - 1.0; }, [](double x) { return x - 1; }, -1, 1, after, mixed),
      row("operator*", [](const Tensor& x) { return x * 3.0; }, [](double x) { return x * 3; }, -1, 1, after, mixed),
      row("operator/", [](const Tensor& x) { return x / 8.0; }, [](double x) { return x / 8; }, -1, 1, after, promotes),
      row("operator+", [](const Tensor& x) { return 2.0 + x; }, [](double x) { return x + 2; }, -1, 1, before, mixed),
      row("operator-", [](const Tensor& x) { return 7.0 - x; }, [](double x) { return 7 - x; }, -1, 1, before, mixed),
      row("operator*", [](const Tensor& x) { return 3.0 * x; }, [](double x) { return x * 3; }, -1, 1, before, mixed),
      row("operator/", [](const Tensor& x) { return 3.0 / x; }, [](double x) { return 3 / x; }, 0.5, 2, before, promotes),
      row("operator-", [](const Tensor& x) { return -x; }, [](double x) { return -x; }, -1, 1, "(Tensor)", numbers),
      row("gelu", [](const Tensor& x) { return gelu(x); }, [](double x) { return x * 0.5 * std::erfc(-x / std::sqrt(2.0)); }, -3, 3, "(Tensor, Gelu)", promotes),
      row("leaky_relu", [](const Tensor& x) { return leaky_relu(x, 0.1); }, [](double x) { return x > 0 ? x : 0.1 * x; }, -1, 1, slope, promotes),
      row("elu", [](const Tensor& x) { return elu(x, 1.5); }, [](double x) { return x > 0 ? x : 1.5 * (std::exp(x) - 1); }, -2, 2, slope, promotes),
      row("relu6", relu6, [](double x) { return std::fmin(std::fmax(x, 0), 6); }, -5, 9, "(Tensor)", numbers),
      row("hardtanh", [](const Tensor& x) { return hardtanh(x, 0, 2); }, [](double x) { return std::fmin(std::fmax(x, 0), 2); }, -5, 9, "(Tensor, double, double)", numbers),
      row("nan_to_num", [](const Tensor& x) { return nan_to_num(x, 3); }, [](double x) { return x; }, -1, 1, slope, promotes),
      row("clamp", [](const Tensor& x) { return clamp(x, 0.0, 3.0); }, [](double x) { return std::fmin(std::fmax(x, 0), 3); }, -5, 9, bounds, numbers),
      row("clamp_", [](const Tensor& x) { return clamp_(fresh(x), 0.0, 3.0); }, [](double x) { return std::fmin(std::fmax(x, 0), 3); }, -5, 9, bounds, numbers)};
  const auto more = [&](const char* declaration, const char* label, double low, double high, const std::function<Tensor(const Tensor&)>& op, const Unary& fn) {
    for (OpRow& one : rows)
      if (one.declaration == declaration)
        one.cases.push_back({label, {{{2, 3}, low, high}}, [op](const Tensors& in) { return op(in[0]); }, [fn](const Arrays& in) { return map(in[0], fn); }});
  };
  for (const double exponent : {0.0, 1.0, 2.0, -1.0})
    more("pow(Tensor, Scalar)", "exponent", 0.5, 2, [exponent](const Tensor& x) { return pow(x, exponent); }, [exponent](double x) { return std::pow(x, exponent); });
  more("gelu(Tensor, Gelu)", "tanh", -3, 3, [](const Tensor& x) { return gelu(x, Gelu::kTanh); },
       [k](double x) { return x / (1 + std::exp(-2 * k * (x + 0.044715 * x * x * x))); });
  more("clamp(Tensor, std::optional<Scalar>, std::optional<Scalar>)", "below only", -5, 9, [](const Tensor& x) { return clamp(x, 1.0); }, [](double x) { return std::fmax(x, 1); });
  more("clamp(Tensor, std::optional<Scalar>, std::optional<Scalar>)", "above only", -5, 9, [](const Tensor& x) { return clamp(x, {}, 1.0); }, [](double x) { return std::fmin(x, 1); });
  for (OpRow& one : rows)
    if (one.name() == "clamp") one.bad.push_back({[] { clamp(Tensor::zeros({2}), {}); }, {"clamp:", "bound"}});
  return rows;
}

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

/// Returns the rows of ops that divide. The divisor is far from 0, and operands of different signs occur.
std::vector<OpRow> division_rows() {
  std::vector<OpRow> rows;
  const auto add = [&](const std::string& name, BinaryCall op, Tensor (*by)(const Tensor&, Scalar), const Binary& fn) {
    OpRow row{.declaration = name + "(Tensor, Tensor)", .takes = Takes::kAnything}, scalar{.declaration = name + "(Tensor, Scalar)", .takes = Takes::kAnything};
    for (const double sign : {1.0, -1.0}) {
      for (const Shapes& s : {Shapes{{3, 4}, {3, 4}, {3, 4}}, Shapes{{2, 3, 4}, {3, 1}, {2, 3, 4}}, Shapes{{}, {2, 2}, {2, 2}}, Shapes{{0, 3}, {1, 3}, {0, 3}}})
        row.cases.push_back({s.a.to_string() + " " + s.b.to_string(), {{s.a, -9, 9}, {s.b, 0.5, 3}}, [op, sign](const Tensors& in) { return op(in[0], in[1].defined() ? mul(masked_fill(in[1], eq(in[1], 0), 1), sign) : in[1]); },
                             [fn, s, sign](const Arrays& in) { return map(in[0], in[1], s.out, [&](double x, double y) { return fn(x, (y == 0 ? 1 : y) * sign); }); }});
      scalar.cases.push_back({"by a scalar", {{{3, 4}, -9, 9}}, [by, sign](const Tensors& in) { return by(in[0], 3 * sign); }, [fn, sign](const Arrays& in) { return map(in[0], [&](double x) { return fn(x, 3 * sign); }); }});
    }
    const auto whole = [](std::vector<std::int64_t> values) { return Tensor::from(values, {static_cast<std::int64_t>(values.size())}); };
    row.bad.push_back({[=] { op(whole({1, 2}), whole({1, 0})); }, {name + ":", "int64 by zero", "(2)"}});
    row.bad.push_back({[=] { op(Tensor::zeros({2, 3}), Tensor::zeros({4, 3})); }, {name + ":", "(2, 3)", "(4, 3)"}});
    scalar.bad.push_back({[=] { by(whole({1, 2}), 0.0); }, {name + ":", "int64 by zero"}});
    rows.push_back(row);
    rows.push_back(scalar);
  };
  add("remainder", remainder, remainder, [](double x, double y) { return x - y * std::floor(x / y); });
  add("fmod", fmod, fmod, [](double x, double y) { return x - y * std::trunc(x / y); });
  add("floor_divide", floor_divide, floor_divide, [](double x, double y) { return std::floor(x / y); });
  for (OpRow& row : rows)
    if (row.name() == "floor_divide") row.second = Second::kNone;
  return rows;
}

/// Returns a bool mask that is true for the positive elements.
Tensor mask_of(const Tensor& like) { return !like.defined() ? like : gt(to(like, DType::kFloat64), 0); }

std::vector<OpRow> ternary_rows() {
  const Input x{{2, 3}}, y{{3}}, z{{2, 1}, 0.5, 2}, mask{{2, 3}, -1, 1, Kind::kConstant};
  const auto ternary = [](const Shape& shape, const std::function<double(double, double, double)>& fn) {
    return [shape, fn](const Arrays& in) {
      Array out(shape);
      for (std::int64_t i = 0; i < out.size(); ++i) {
        const auto at = index_of(i, shape);
        out[i] = fn(in[0].at(at), in[1].at(at), in.size() > 2 ? in[2].at(at) : 0);
      }
      return out;
    };
  };
  const Shape whole{2, 3};
  std::vector<OpRow> rows;
  const auto row = [&](const char* declaration, std::vector<Input> inputs, const std::function<Tensor(const Tensors&)>& op,
                       const std::function<double(double, double, double)>& fn, Takes takes) {
    rows.push_back({.declaration = declaration, .takes = takes, .cases = {{"broadcast", std::move(inputs), op, ternary(whole, fn)}}});
  };
  row("where(Tensor, Tensor, Tensor)", {mask, y, z}, [](const Tensors& in) { return where(mask_of(in[0]), in[1], in[2]); },
      [](double m, double a, double b) { return m > 0 ? a : b; }, Takes::kAnything);
  rows.back().bad.push_back({[] { where(Tensor::zeros({2}), Tensor::zeros({2}), Tensor::zeros({2})); }, {"where:", "bool", "float32"}});
  row("masked_fill(Tensor, Tensor, Scalar)", {x, mask}, [](const Tensors& in) { return masked_fill(in[0], mask_of(in[1]), 1); },
      [](double a, double m, double) { return m > 0 ? 1.0 : a; }, Takes::kAnything);
  rows.back().bad.push_back({[] { masked_fill(Tensor::zeros({2}), Tensor::zeros({2}), 1); }, {"masked_fill:", "bool", "float32"}});
  rows.back().bad.push_back({[] { masked_fill(Tensor::zeros({2}), Tensor::zeros({3}, DType::kBool), 1); }, {"masked_fill:", "(2)", "(3)"}});
  row("masked_fill_(Tensor, Tensor, Scalar)", {x, mask}, [](const Tensors& in) { return masked_fill_(fresh(in[0]), mask_of(in[1]), 1); },
      [](double a, double m, double) { return m > 0 ? 1.0 : a; }, Takes::kAnything);
  row("lerp(Tensor, Tensor, double)", {x, y}, [](const Tensors& in) { return lerp(in[0], in[1], 0.25); },
      [](double a, double b, double) { return a + 0.25 * (b - a); }, Takes::kFloating);
  rows.back().bad.push_back({[] { lerp(Tensor::zeros({2}), Tensor::zeros({3}), 1); }, {"lerp:", "(2)", "(3)"}});
  row("lerp(Tensor, Tensor, Tensor)", {x, y, z}, [](const Tensors& in) { return lerp(in[0], in[1], in[2]); },
      [](double a, double b, double c) { return a + c * (b - a); }, Takes::kFloating);
  row("addcmul(Tensor, Tensor, Tensor, Scalar)", {x, y, z}, [](const Tensors& in) { return addcmul(in[0], in[1], in[2], 2); },
      [](double a, double b, double c) { return a + 2 * b * c; }, Takes::kNumbers);
  rows.back().bad.push_back({[] { addcmul(Tensor::zeros({2}), Tensor::zeros({2}), Tensor::zeros({3})); }, {"addcmul:", "(2)", "(3)"}});
  row("addcdiv(Tensor, Tensor, Tensor, double)", {x, y, z}, [](const Tensors& in) { return addcdiv(in[0], in[1], in[2], 2); },
      [](double a, double b, double c) { return a + 2 * b / c; }, Takes::kFloating);
  return rows;
}

}  // namespace

std::vector<OpRow> elementwise_rows() {
  const Takes numbers = Takes::kNumbers, promotes = Takes::kPromotes;
  const auto plus = [](double x, double y) { return x + y; };
  const auto minus = [](double x, double y) { return x - y; };
  const auto times = [](double x, double y) { return x * y; };
  const auto over = [](double x, double y) { return x / y; };
  std::vector<OpRow> rows{
      binary_row("add", add, plus, -1, 1, numbers),
      binary_row("sub", sub, minus, -1, 1, numbers),
      binary_row("mul", mul, times, -1, 1, numbers),
      binary_row("div", div, over, 0.5, 2, promotes),
      binary_row("operator+", operator+, plus, -1, 1, numbers),
      binary_row("operator-", operator-, minus, -1, 1, numbers),
      binary_row("operator*", operator*, times, -1, 1, numbers),
      binary_row("operator/", operator/, over, 0.5, 2, promotes),
      binary_row("pow", pow, [](double x, double y) { return std::pow(x, y); }, 0.5, 2, promotes),
      binary_row("atan2", atan2, [](double x, double y) { return std::atan(x / y); }, 0.5, 2, promotes),
      binary_row("maximum", maximum, [](double x, double y) { return std::fmax(x, y); }, -1, 1, numbers),
      binary_row("minimum", minimum, [](double x, double y) { return std::fmin(x, y); }, -1, 1, numbers),
      compare_row("eq", eq, [](double x, double y) { return x == y; }),
      compare_row("ne", ne, [](double x, double y) { return x != y; }),
      compare_row("lt", lt, [](double x, double y) { return x < y; }),
      compare_row("le", le, [](double x, double y) { return x <= y; }),
      compare_row("gt", gt, [](double x, double y) { return x > y; }),
      compare_row("ge", ge, [](double x, double y) { return x >= y; }),
      compare_row("logical_and", logical_and, [](double x, double y) { return x != 0 && y != 0; }),
      compare_row("logical_or", logical_or, [](double x, double y) { return x != 0 || y != 0; }),
      compare_row("logical_xor", logical_xor, [](double x, double y) { return (x != 0) != (y != 0); })};
  const auto test = [&](const char* name, const std::function<Tensor(const Tensor&)>& op, const Unary& fn, const char* arguments = "(Tensor)") {
    rows.push_back(unary_row(name, op, fn, -1, 1, arguments, Takes::kAnything));
    rows.back().second = Second::kNone;
  };
  const char* scalar = "(Tensor, Scalar)";
  test("eq", [](const Tensor& x) { return eq(x, 1); }, [](double x) { return x == 1; }, scalar);
  test("ne", [](const Tensor& x) { return ne(x, 1); }, [](double x) { return x != 1; }, scalar);
  test("lt", [](const Tensor& x) { return lt(x, 0.25); }, [](double x) { return x < 0.25; }, scalar);
  test("le", [](const Tensor& x) { return le(x, 0.25); }, [](double x) { return x <= 0.25; }, scalar);
  test("gt", [](const Tensor& x) { return gt(x, 0.25); }, [](double x) { return x > 0.25; }, scalar);
  test("ge", [](const Tensor& x) { return ge(x, 0.25); }, [](double x) { return x >= 0.25; }, scalar);
  test("logical_not", logical_not, [](double x) { return x == 0; });
  test("isnan", isnan, [](double) { return false; });
  test("isinf", isinf, [](double) { return false; });
  test("isfinite", isfinite, [](double) { return true; });
  for (const auto& part : {unary_rows(), scalar_rows(), division_rows(), ternary_rows()}) rows.insert(rows.end(), part.begin(), part.end());
  return rows;
}

std::vector<OpRow> in_place_rows() {
  using TensorOp = const Tensor& (*)(const Tensor&, const Tensor&);
  const auto scalar_row = [](const std::string& name, const std::function<Tensor(const Tensor&)>& op, const Unary& fn, Takes takes, const char* arguments = "(Tensor, Scalar)") {
    OpRow row{.declaration = name + arguments, .takes = takes};
    for (const Shape& shape : {Shape{3, 4}, Shape{}, Shape{0, 2}, Shape{2, 3, 2, 2}})
      row.cases.push_back({shape.to_string(), {{shape}}, [op](const Tensors& in) { return op(fresh(in[0])); },
                           [fn](const Arrays& in) { return map(in[0], fn); }});
    return row;
  };
  const Takes numbers = Takes::kNumbers, anything = Takes::kAnything;
  std::vector<OpRow> rows{
      in_place_binary("add_", TensorOp(add_), [](double x, double y) { return x + y; }, numbers),
      in_place_binary("sub_", TensorOp(sub_), [](double x, double y) { return x - y; }, numbers),
      in_place_binary("mul_", TensorOp(mul_), [](double x, double y) { return x * y; }, numbers),
      in_place_binary("copy_", TensorOp(copy_), [](double, double y) { return y; }, anything),
      scalar_row("add_", [](const Tensor& t) { return add_(t, 3); }, [](double x) { return x + 3; }, numbers),
      scalar_row("mul_", [](const Tensor& t) { return mul_(t, 3); }, [](double x) { return 3 * x; }, numbers),
      scalar_row("fill_", [](const Tensor& t) { return fill_(t, 1); }, [](double) { return 1.0; }, anything),
      scalar_row("zero_", zero_, [](double) { return 0.0; }, anything, "(Tensor)")};
  rows[5].bad.push_back({[] { mul_(Tensor::zeros({2}, DType::kInt64), 0.5); }, {"mul_:", "0.5", "int64"}});
  for (int i = 0; i < 3; ++i) {
    const TensorOp op = i == 0 ? TensorOp(add_) : i == 1 ? TensorOp(sub_) : TensorOp(mul_);
    rows[static_cast<std::size_t>(i)].bad.push_back({[op] { op(Tensor::zeros({2}, DType::kInt64), Tensor::zeros({2})); },
                                                     {rows[static_cast<std::size_t>(i)].name() + ":", "float32", "int64"}});
  }
  OpRow quotient{.declaration = "div_(Tensor, Tensor)"};
  for (const Shapes& s : {Shapes{{3, 4}, {3, 4}, {3, 4}}, Shapes{{2, 3, 2, 2}, {3, 1, 1}, {2, 3, 2, 2}}})
    quotient.cases.push_back({s.a.to_string(), {{s.a}, {s.b, 0.5, 2}}, [](const Tensors& in) { return div_(fresh(in[0]), in[1]); },
                              [s](const Arrays& in) { return map(in[0], in[1], s.out, [](double x, double y) { return x / y; }); }});
  rows.push_back(quotient);
  return rows;
}

}  // namespace trireme::test
