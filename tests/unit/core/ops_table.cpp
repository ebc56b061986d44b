// Runs the tests that every row of the op test table gets.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "core/autograd/autograd.h"
#include "tests/support/op_table.h"

namespace trireme::test {
namespace {

/// Returns the values of argument `which`. They are all different, spread by multiples of the golden section,
/// and never round numbers.
Array values_of(const Input& in, std::size_t which) {
  Array a(in.shape);
  for (std::int64_t i = 0; i < a.size(); ++i) {
    const double unit =
        std::fmod(0.377 + 0.61803398875 * static_cast<double>(i) + 0.2718 * static_cast<double>(which), 1.0);
    a[i] = in.kind == Kind::kLabel ? std::floor(unit * in.high) : in.low + (in.high - in.low) * unit;
  }
  return a;
}

Arrays values_of(const Case& c) {
  Arrays all;
  for (std::size_t i = 0; i < c.inputs.size(); ++i) all.push_back(values_of(c.inputs[i], i));
  return all;
}

bool wants_gradient(const Input& in) { return in.kind == Kind::kValue || in.kind == Kind::kOptional; }

Tensors tensors_of(const Case& c, const Arrays& values, DType dtype, bool gradients) {
  Tensors all;
  for (std::size_t i = 0; i < values.size(); ++i) {
    all.push_back(to_dtype(Tensor::from(values[i].values, values[i].shape),
                           c.inputs[i].kind == Kind::kLabel ? DType::kInt64 : dtype));
    if (gradients && wants_gradient(c.inputs[i])) all.back().set_requires_grad(true);
  }
  return all;
}

void expect_near(const std::vector<double>& got, const std::vector<double>& wanted, double tolerance,
                 const std::string& what) {
  ASSERT_EQ(got.size(), wanted.size()) << what;
  for (std::size_t i = 0; i < got.size(); ++i) {
    // Equal infinities, and NaN for NaN, are right.
    if (got[i] == wanted[i] || (std::isnan(got[i]) && std::isnan(wanted[i]))) continue;
    ASSERT_LE(std::fabs(got[i] - wanted[i]), tolerance * (1 + std::fabs(wanted[i])))
        << what << ", element " << i << ": " << got[i] << " for " << wanted[i];
  }
}

/// Returns sum(out * weights) with weights that are all different.
Tensor weighted(const Tensor& out) {
  const Array weights = values_of({out.shape(), 0.5, 1.5}, 5);
  return sum(mul(out, to_dtype(Tensor::from(weights.values, weights.shape), out.dtype())));
}

/// Returns the gradients of weighted(call(inputs)), with zeros for inputs that have none.
std::vector<std::vector<double>> gradients_of(const Case& c, const Tensors& in) {
  const Tensor loss = weighted(c.call(in));
  if (loss.requires_grad()) backward(loss);
  std::vector<std::vector<double>> all;
  for (const Tensor& t : in) {
    const Tensor g = t.grad();
    EXPECT_TRUE(!g.defined() || g.shape() == t.shape());
    all.push_back(g.defined() ? g.to_vector<double>()
                              : std::vector<double>(static_cast<std::size_t>(t.numel())));
  }
  return all;
}

/// Returns the derivative of fn by input i, from central differences.
std::vector<double> numeric(const Arrays& at, std::size_t i, const std::function<double(const Arrays&)>& fn) {
  constexpr double kStep = 1e-6;
  std::vector<double> slope;
  for (std::int64_t k = 0; k < at[i].size(); ++k) {
    Arrays up = at, down = at;
    up[i][k] += kStep;
    down[i][k] -= kStep;
    slope.push_back((fn(up) - fn(down)) / (2 * kStep));
  }
  return slope;
}

template <class Fn>
void for_each_case(const Fn& fn) {
  for (const OpRow& row : op_table())
    for (const Case& c : row.cases) {
      SCOPED_TRACE(row.declaration + ": " + c.label);
      try {
        fn(row, c);
      } catch (const std::exception& e) {
        ADD_FAILURE() << "threw: " << e.what();
      }
      if (::testing::Test::HasFatalFailure()) return;
    }
}

TEST(OpTable, HasARowForEveryOp) {
  const auto declared = declarations_in(op_headers());
  ASSERT_GT(declared.size(), 200u);
  std::set<std::string> rows;
  for (const OpRow& row : op_table()) rows.insert(row.declaration);
  for (const std::string& one : declared)
    EXPECT_TRUE(rows.count(one)) << one << " has no row in tests/support/op_table*.cpp";
  for (const std::string& one : rows)
    EXPECT_TRUE(std::count(declared.begin(), declared.end(), one))
        << one << " has a row but is not declared in a header of core/ops/ops.h";
}

TEST(OpTable, ParserSeesEveryDeclaration) {
  EXPECT_EQ(
      declarations_in("Tensor a(const Tensor& x,\n         double y = 0);\ninline Tensor operator+(const "
                      "Tensor& p, const Tensor& q) { }\n"
                      "const Tensor& b_(const Tensor& t);\nTensor c();\nstruct Tensor d;\n"),
      (std::vector<std::string>{"a(Tensor, double)", "operator+(Tensor, Tensor)", "b_(Tensor)", "c()"}));
}

TEST(OpTable, Values) {
  for_each_case([](const OpRow&, const Case& c) {
    const Arrays values = values_of(c);
    const Tensor out = c.call(tensors_of(c, values, DType::kFloat64, false));
    const Array wanted = c.reference(values);
    ASSERT_EQ(out.shape(), wanted.shape);
    expect_near(out.to_vector<double>(), wanted.values, 1e-12, "value");
  });
}

TEST(OpTable, Gradients) {
  for_each_case([](const OpRow& row, const Case& c) {
    const Arrays values = values_of(c);
    const Tensors in = tensors_of(c, values, DType::kFloat64, true);
    if (row.second == Second::kNone) {
      EXPECT_FALSE(c.call(in).requires_grad());
      return;
    }
    const auto analytic = gradients_of(c, in);
    for (std::size_t i = 0; i < in.size(); ++i) {
      if (!wants_gradient(c.inputs[i])) continue;
      const auto slope = numeric(values, i, [&](const Arrays& at) {
        return weighted(c.call(tensors_of(c, at, DType::kFloat64, false))).item();
      });
      expect_near(analytic[i], slope, 1e-7, "gradient of input " + std::to_string(i));
    }
  });
}

/// Returns the sum over inputs of weighted(gradient), a scalar whose gradient is a second derivative.
Tensor weighted_gradients(const Case& c, const Tensors& in, bool create_graph) {
  Tensors wanted;
  for (std::size_t i = 0; i < in.size(); ++i)
    if (wants_gradient(c.inputs[i])) wanted.push_back(in[i]);
  Tensor total = Tensor::scalar(0, DType::kFloat64);
  for (const Tensor& g : grad(weighted(c.call(in)), wanted, {}, {.create_graph = create_graph}))
    if (g.defined()) total = add(total, weighted(g));
  return total;
}

TEST(OpTable, SecondDerivatives) {
  for_each_case([](const OpRow& row, const Case& c) {
    const Arrays values = values_of(c);
    const Tensors in = tensors_of(c, values, DType::kFloat64, true);
    if (row.second == Second::kNone) return;
    const Tensor total = weighted_gradients(c, in, true);
    if (total.requires_grad()) backward(total);
    for (std::size_t i = 0; i < in.size(); ++i) {
      if (!wants_gradient(c.inputs[i])) continue;
      const Tensor g = in[i].grad();
      const auto analytic =
          g.defined() ? g.to_vector<double>() : std::vector<double>(static_cast<std::size_t>(in[i].numel()));
      const auto slope = numeric(values, i, [&](const Arrays& at) {
        return weighted_gradients(c, tensors_of(c, at, DType::kFloat64, true), false).item();
      });
      expect_near(analytic, slope, 1e-6, "second derivative of input " + std::to_string(i));
    }
  });
}

TEST(OpTable, Float32AgreesWithFloat64) {
  for_each_case([](const OpRow& row, const Case& c) {
    const Arrays values = values_of(c);
    const Tensors wide = tensors_of(c, values, DType::kFloat64, row.second != Second::kNone);
    const Tensors narrow32 = tensors_of(c, values, DType::kFloat32, row.second != Second::kNone);
    const Tensor out = c.call(narrow32);
    expect_near(out.to_vector<double>(), c.call(wide).to_vector<double>(), row.float32_tolerance, "value");
    if (row.second == Second::kNone) return;
    const auto g64 = gradients_of(c, wide), g32 = gradients_of(c, narrow32);
    for (std::size_t i = 0; i < g64.size(); ++i) {
      EXPECT_TRUE(!narrow32[i].grad().defined() || narrow32[i].grad().dtype() == DType::kFloat32);
      expect_near(g32[i], g64[i], row.float32_tolerance, "gradient of input " + std::to_string(i));
    }
  });
}

enum class Layout { kReversed, kHoles, kChannelsLast };

/// Returns a copy of t in another memory layout. Unused elements between are NaN, or 99 if not floating
/// point.
Tensor laid_out(const Tensor& t, Layout layout) {
  const Shape& shape = t.shape();
  Shape memory, strides = shape;
  if (layout == Layout::kReversed) {
    for (int d = shape.size() - 1; d >= 0; --d) memory.push_back(shape[d]);
    for (int d = 0; d < shape.size(); ++d) strides[d] = contiguous_strides(memory)[shape.size() - 1 - d];
  } else if (layout == Layout::kChannelsLast && shape.size() == 4) {
    memory = shape;
    strides = channels_last_strides(shape);
  } else {
    for (std::int64_t size : shape) memory.push_back(size + 2);
    strides = contiguous_strides(memory);
  }
  const Tensor block = Tensor::full(memory, is_floating(t.dtype()) ? std::nan("") : 99, t.dtype());
  std::int64_t first = 0;
  if (layout == Layout::kHoles)
    for (int d = 0; d < shape.size(); ++d) first += strides[d];
  Tensor out = block.alias(shape, strides, first);
  copy_into(out, t);
  return out.set_requires_grad(t.requires_grad());
}

TEST(OpTable, MemoryLayoutsChangeNothing) {
  for_each_case([](const OpRow& row, const Case& c) {
    const Arrays values = values_of(c);
    for (const DType dtype : {DType::kFloat64, DType::kFloat32})
      for (const Layout layout : {Layout::kReversed, Layout::kHoles, Layout::kChannelsLast}) {
        const Tensors dense = tensors_of(c, values, dtype, row.second != Second::kNone);
        Tensors other;
        for (const Tensor& t : dense) other.push_back(laid_out(t, layout));
        const std::string what = "layout " + std::to_string(static_cast<int>(layout));
        const double tolerance = dtype == DType::kFloat64 ? 1e-12 : row.float32_tolerance;
        expect_near(c.call(other).to_vector<double>(), c.call(dense).to_vector<double>(), tolerance, what);
        if (row.second == Second::kNone) continue;
        const auto g_dense = gradients_of(c, dense), g_other = gradients_of(c, other);
        for (std::size_t i = 0; i < g_dense.size(); ++i)
          expect_near(g_other[i], g_dense[i], tolerance, what + ", gradient");
      }
  });
}

bool takes(const OpRow& row, DType dtype) {
  return is_floating(dtype) || row.takes == Takes::kAnything || row.takes == Takes::kPromotes ||
         (row.takes == Takes::kNumbers && dtype != DType::kBool);
}

template <class T>
std::vector<double> as_dtype(std::vector<double> wanted) {
  if constexpr (std::is_integral_v<T>)
    for (double& v : wanted) v = static_cast<double>(static_cast<T>(static_cast<std::int64_t>(v)));
  return wanted;
}

TEST(OpTable, DTypes) {
  for (const OpRow& row : op_table())
    for (const DType dtype : {DType::kInt64, DType::kUInt8, DType::kBool}) {
      SCOPED_TRACE(row.declaration + " of " + std::string(name_of(dtype)));
      const Case& c = row.cases[0];
      Arrays values = values_of(c);
      for (std::size_t i = 0; i < values.size(); ++i)
        for (std::int64_t k = 0; k < values[i].size(); ++k)
          if (c.inputs[i].kind != Kind::kLabel)
            values[i][k] =
                static_cast<double>(dtype == DType::kBool ? (k + static_cast<std::int64_t>(i)) % 2
                                                          : (k * 5 + static_cast<std::int64_t>(i) * 2) % 7);
      const Tensors in = tensors_of(c, values, dtype, false);
      try {
        const Tensor out = c.call(in);
        ASSERT_TRUE(takes(row, dtype)) << "nothing was thrown";
        visit_dtype(out.dtype(), [&](auto type) {
          expect_near(out.to_vector<double>(), as_dtype<decltype(type)>(c.reference(values).values),
                      is_floating(out.dtype()) ? row.float32_tolerance : 0, "value");
        });
      } catch (const Error& e) {
        EXPECT_FALSE(takes(row, dtype)) << e.what();
        const std::string message = e.what(), shown = row.name().rfind("operator", 0) == 0 ? "" : row.name();
        EXPECT_NE(message.find(shown), std::string::npos) << message;
        EXPECT_NE(message.find(name_of(dtype)), std::string::npos) << message;
      }
    }
}

TEST(OpTable, UndefinedArguments) {
  for (const OpRow& row : op_table()) {
    const Case& c = row.cases[0];
    for (std::size_t i = 0; i < c.inputs.size(); ++i) {
      if (c.inputs[i].kind == Kind::kOptional || c.inputs[i].kind == Kind::kPlaceholder) continue;
      SCOPED_TRACE(row.declaration);
      Tensors in = tensors_of(c, values_of(c), DType::kFloat32, false);
      in[i] = Tensor();
      try {
        c.call(in);
        ADD_FAILURE() << "nothing was thrown";
      } catch (const Error& e) {
        const std::string shown = row.name().rfind("operator", 0) == 0 ? "" : row.name();
        EXPECT_NE(std::string(e.what()).find(shown), std::string::npos) << e.what();
        EXPECT_NE(std::string(e.what()).find("undefined"), std::string::npos) << e.what();
      }
    }
  }
}

TEST(OpTable, WrongCallsSayWhatIsWrong) {
  for (const OpRow& row : op_table())
    for (const BadCall& bad : row.bad) {
      SCOPED_TRACE(row.declaration);
      try {
        bad.call();
        ADD_FAILURE() << "nothing was thrown; the message should have held " << bad.parts[0] << " "
                      << bad.parts.back();
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), ExitCode::kInternal);
        for (const std::string& part : bad.parts)
          EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << part << " in: " << e.what();
        EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos);
      }
    }
}

}  // namespace
}  // namespace trireme::test
