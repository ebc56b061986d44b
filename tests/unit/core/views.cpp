// Tests in-place changes of tensors that share memory. Every view must have the right autograd history.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "core/autograd/autograd.h"
#include "core/ops/ops.h"
#include "tests/support/errors.h"

namespace trireme {
namespace {

using test::error_of;

using Doubles = std::vector<double>;

Tensor values(const Shape& shape, double first, bool wants = true) {
  Doubles all;
  for (std::int64_t i = 0; i < shape.numel(); ++i) all.push_back(first + 0.1 * static_cast<double>(i));
  return Tensor::from(all, shape).set_requires_grad(wants);
}

void expect_error(const std::function<void()>& fn, const char* part) {
  EXPECT_NE(error_of(fn).find(part), std::string::npos) << part << " in: " << error_of(fn);
}

using Program = std::function<Tensor(const Tensor& x, const Tensor& y)>;

/// Compares gradients of sum(w * program(x, y)) with central differences, and then those of a sum of the
/// gradients.
void expect_right_gradients(const Program& program, const Shape& sx, const Shape& sy) {
  const auto loss = [&](const Tensor& x, const Tensor& y) {
    const Tensor out = program(x, y);
    return sum(out * values(out.shape(), 0.5, false));
  };
  const auto slopes = [&](const std::function<double(const Tensor&, const Tensor&)>& f, int which) {
    Doubles all;
    const Shape& shape = which ? sy : sx;
    for (std::int64_t i = 0; i < shape.numel(); ++i) {
      double ends[2];
      for (int side = 0; side < 2; ++side) {
        const Tensor x = values(sx, 0.3), y = values(sy, 0.8);
        (which ? y : x).data<double>()[i] += side ? 1e-6 : -1e-6;
        ends[side] = f(x, y);
      }
      all.push_back((ends[1] - ends[0]) / 2e-6);
    }
    return all;
  };
  const auto once = [&](const Tensor& x, const Tensor& y, bool create) {
    Tensor total = Tensor::scalar(0, DType::kFloat64);
    for (const Tensor& g : grad(loss(x, y), {x, y}, {}, {.create_graph = create}))
      if (g.defined()) total = total + sum(g * values(g.shape(), 0.7, false));
    return total;
  };
  for (int which = 0; which < 2; ++which) {
    const Tensor x = values(sx, 0.3), y = values(sy, 0.8);
    loss(x, y).backward();
    const Tensor got = (which ? y : x).grad();
    const Doubles wanted = slopes([&](const Tensor& a, const Tensor& b) { return loss(a, b).item(); }, which);
    const Doubles first = got.defined() ? got.to_vector<double>() : Doubles(wanted.size());
    for (std::size_t i = 0; i < wanted.size(); ++i)
      EXPECT_NEAR(first[i], wanted[i], 1e-7 * (1 + std::fabs(wanted[i]))) << which << i;

    const Tensor a = values(sx, 0.3), b = values(sy, 0.8);
    const Tensor penalty = once(a, b, true);
    if (penalty.requires_grad()) penalty.backward();
    const Tensor second = (which ? b : a).grad();
    const Doubles slope =
        slopes([&](const Tensor& p, const Tensor& q) { return once(p, q, false).item(); }, which);
    const Doubles analytic = second.defined() ? second.to_vector<double>() : Doubles(slope.size());
    for (std::size_t i = 0; i < slope.size(); ++i)
      EXPECT_NEAR(analytic[i], slope[i], 1e-6 * (1 + std::fabs(slope[i]))) << which << i;
  }
}

const Shape kMatrix{3, 4}, kRow{4};

TEST(Views, AChangedBaseReachesItsViews) {
  expect_right_gradients(
      [](const Tensor& x, const Tensor&) {
        const Tensor a = x * x, v = narrow(a, 0, 1, 2);
        mul_(a, 3.0);
        return v * v;
      },
      kMatrix, kRow);
}

TEST(Views, AChangedViewReachesItsBase) {
  expect_right_gradients(
      [](const Tensor& x, const Tensor& y) {
        const Tensor a = x * x, v = narrow(transpose(a, 0, 1), 0, 1, 2);
        mul_(v, reshape(narrow(y, 0, 0, 2), {2, 1}));
        return a * a + sum(v);
      },
      kMatrix, kRow);
}

TEST(Views, SiblingsAndViewsOfViewsFollow) {
  expect_right_gradients(
      [](const Tensor& x, const Tensor& y) {
        const Tensor a = x * x, rows = narrow(a, 0, 0, 2), column = narrow(rows, 1, 1, 1),
                     flat = reshape(a, {12});
        add_(narrow(flat, 0, 0, 4), y);
        mul_(column, 2.0);
        add_(rows, y * y);
        return rows * rows + narrow(a, 0, 1, 2) * column;
      },
      kMatrix, kRow);
}

TEST(Views, AConstantBaseGetsAHistory) {
  expect_right_gradients(
      [](const Tensor& x, const Tensor& y) {
        const Tensor a = Tensor::zeros({3, 4}, DType::kFloat64), v = narrow(a, 0, 0, 1),
                     w = narrow(a, 0, 1, 2);
        copy_(v, reshape(y, {1, 4}));
        copy_(w, narrow(x, 0, 0, 2) * 2.0);
        return a * a * v;
      },
      kMatrix, kRow);
}

TEST(Views, ExpandedViewsFollowTheirBase) {
  expect_right_gradients(
      [](const Tensor& x, const Tensor& y) {
        const Tensor a = y * y, wide = expand(a, {3, 4});
        mul_(a, a);
        return wide * x;
      },
      kMatrix, kRow);
}

TEST(Views, OverwrittenPartsGetNothing) {
  expect_right_gradients(
      [](const Tensor& x, const Tensor& y) {
        const Tensor a = x * 2.0;
        fill_(narrow(a, 1, 0, 2), 7);
        copy_(narrow(a, 0, 2, 1), y);  // broadcasts y
        return a * a;
      },
      kMatrix, kRow);
}

TEST(Views, ChangesWithAnOverlapReadWhatWasThere) {
  const Tensor t = Tensor::from(Doubles{1, 2, 3, 4}, {2, 2});
  add_(t, transpose(t, 0, 1));
  EXPECT_EQ(t.to_vector<double>(), (Doubles{2, 5, 5, 8}));
  const Tensor s = Tensor::from(Doubles{1, 2, 3}, {3});
  copy_(narrow(s, 0, 1, 2), narrow(s, 0, 0, 2));
  EXPECT_EQ(s.to_vector<double>(), (Doubles{1, 1, 2}));
  expect_right_gradients(
      [](const Tensor& x, const Tensor& y) {
        const Tensor a = expand(y, {4, 4}) * 1.0;
        mul_(a, transpose(a, 0, 1));
        copy_(narrow(a, 0, 1, 2), narrow(a, 0, 0, 2));
        return a * a * sum(x);
      },
      kMatrix, kRow);
}

TEST(Views, WhatCannotBeChangedInPlaceSaysSo) {
  const Tensor x = values({3}, 1), wide = expand(values({3}, 1, false), {2, 3});
  expect_error([&] { mul_(wide, 2.0); }, "share memory; clone it first");
  expect_error([&] { mul_(x, 2.0); }, "a leaf that wants a gradient");
  expect_error([&] { mul_(narrow(x, 0, 0, 1), 2.0); }, "a view of a leaf");
  const NoGrad off;
  mul_(narrow(x, 0, 0, 1), 2.0);
  EXPECT_EQ(x.to_vector<double>()[0], 2);
}

TEST(Views, DetachedHandlesDoNotFollow) {
  const Tensor x = values({3}, 1), y = x * 2.0, cut = y.detach();
  mul_(cut, 2.0);
  EXPECT_FALSE(cut.requires_grad());
  sum(y).backward();
  EXPECT_EQ(x.grad().to_vector<double>(), (Doubles{2, 2, 2})) << "the values changed, the history did not";
}

TEST(Views, CloneIsDifferentiable) {
  expect_right_gradients([](const Tensor& x, const Tensor&) { return x.clone() * x; }, kMatrix, kRow);
}

TEST(Nodes, SeveralOutputs) {
  const auto halves = [](const Tensor& x) {
    return record(
        "halves",
        std::vector<Tensor>{mul(x.detach(), 0.5), mul(x.detach(), 0.5), Tensor::zeros({2}, DType::kInt64)},
        std::vector<const Tensor*>{&x}, [](Backward& g) {
          Tensor total;
          for (int i = 0; i < 3; ++i)
            if (const Tensor part = g.gradient(i); part.defined())
              total = total.defined() ? add(total, mul(part, 0.5)) : mul(part, 0.5);
          g.set(0, total);
        });
  };
  const Tensor x = values({2}, 1);
  const auto parts = halves(x);
  EXPECT_FALSE(parts[2].requires_grad());
  EXPECT_TRUE(parts[1].requires_grad());
  sum(parts[0] * 4.0 + parts[1] * 6.0).backward();
  EXPECT_EQ(x.grad().to_vector<double>(), (Doubles{5, 5}));
  sum(halves(x)[1]).backward();  // the first output has no gradient
  EXPECT_EQ(x.grad().to_vector<double>(), (Doubles{5.5, 5.5}));
  const auto twice = halves(x);
  const auto g = grad(sum(twice[0] * twice[1]), {twice[1], x});
  EXPECT_EQ(g[0].to_vector<double>(), twice[0].to_vector<double>());
}

// The elements of an expanded tensor have separate gradients, although they share memory.
TEST(Views, PartsOfExpandedTensorsHaveTheirOwnGradients) {
  const auto gradient_of = [](const Shape& shape, auto&& fn) {
    const Tensor x = Tensor::ones(shape, DType::kFloat64).set_requires_grad(true);
    sum(fn(x)).backward();
    return x.grad().to_vector<double>();
  };
  EXPECT_EQ(gradient_of({1, 3},
                        [](const Tensor& x) {
                          return select(expand(x, {3, 3}), 1, 1);
                        }),
            (Doubles{0, 3, 0}));
  EXPECT_EQ(gradient_of({2},
                        [](const Tensor& x) {
                          return narrow(expand(x, {4, 2}), 0, 0, 3);
                        }),
            (Doubles{3, 3}));
  EXPECT_EQ(gradient_of({1}, [](const Tensor& x) { return split(expand(x, {5}), 2, 0)[1]; }), (Doubles{2}));
  EXPECT_EQ(gradient_of({1, 2},
                        [](const Tensor& x) {
                          return diagonal(expand(x, {2, 2}));
                        }),
            (Doubles{1, 1}));
  EXPECT_EQ(gradient_of({5}, [](const Tensor& x) { return select(unfold(x, 0, 3, 1), 1, 1); }),
            (Doubles{0, 1, 1, 1, 0}));
  EXPECT_EQ(gradient_of({4}, [](const Tensor& x) { return narrow(unfold(x, 0, 3, 1), 1, 0, 2); }),
            (Doubles{1, 2, 1, 0}));
  const Tensor leaf = expand(values({1, 2}, 1, false), {3, 2}).detach().set_requires_grad(true);
  sum(select(leaf, 0, 0)).backward();
  EXPECT_EQ(leaf.grad().to_vector<double>(), (Doubles{1, 1, 0, 0, 0, 0}));
  const Tensor x = values({1, 3}, 1);
  const Tensor first = grad(sum(square(select(expand(x, {3, 3}), 1, 1))), {x}, {}, {.create_graph = true})[0];
  EXPECT_EQ(grad(sum(first), {x})[0].to_vector<double>(), (Doubles{0, 6, 0}));
  const Tensor shared = expand(Tensor::zeros({1, 2}, DType::kFloat64), {3, 2}).detach();
  expect_error([&] { add_(select(shared, 0, 0), values({2}, 1)); }, "a tensor whose elements share memory");
}

TEST(Views, ALeafThatIsAViewOfAPlainTensorIsNotChangedInPlace) {
  const Tensor flat = Tensor::zeros({4}, DType::kFloat64);
  Tensor part = narrow(flat, 0, 0, 2);
  part.set_requires_grad(true);
  expect_error([&] { mul_(part, 2); }, "a leaf that wants a gradient cannot be changed in place");
}

TEST(Nodes, GradientsOfTheWrongShapeAreNamed) {
  const Tensor x = values({2, 3}, 1), y = exp(x);
  const Tensor wrong = record("mine", y.detach(), {&y}, [](Backward& g) { g.set(0, sum(g.grad)); });
  expect_error([&] { sum(wrong).backward(); },
               "mine hands a gradient of float64 () to exp, whose result is float64 (2, 3)");
  const Tensor z = exp(x);
  register_hook(z, [](const Tensor& g) { return narrow(g, 0, 0, 1); });
  expect_error([&] { sum(z).backward(); }, "a hook hands a gradient of float64 (1, 3) to exp");
}

TEST(Nodes, HooksCanBeRemovedAndMayAddOthers) {
  const Tensor x = values({2}, 1);
  int calls = 0;
  HookHandle handle = register_hook(x, [&](const Tensor&) {
    for (int i = 0; i < 20; ++i)
      register_hook(x, [&](const Tensor&) {
        ++calls;
        return Tensor();
      });
    return Tensor();
  });
  sum(x).backward();
  EXPECT_EQ(calls, 20);
  handle.remove();
  handle.remove();
  sum(x).backward();
  EXPECT_EQ(calls, 40);
}

TEST(Nodes, GradRunsOnlyWhatItNeeds) {
  const Tensor x = values({2}, 1), w = values({2}, 2);
  const Tensor y = x * 2.0;
  const Tensor side = record("side", w.detach(), {&w}, [](Backward&) { fail(ExitCode::kInternal, "ran"); });
  EXPECT_EQ(grad(sum(y * side), {y})[0].to_vector<double>(), w.to_vector<double>());
  sum(y).backward();  // nodes that the first pass did not run still exist
}

TEST(Nodes, SeveralRoots) {
  const Tensor x = values({2}, 1);
  backward(std::vector{sum(x * 2.0), sum(x * 3.0)});
  EXPECT_EQ(x.grad().to_vector<double>(), (Doubles{5, 5}));
  const auto g =
      grad(std::vector{x * 2.0, x * 3.0}, {x}, {Tensor::ones({2}, DType::kFloat64), values({2}, 1, false)});
  EXPECT_EQ(g[0].to_vector<double>(), (Doubles{2 + 3, 2 + 3 * 1.1}));
}

TEST(Anomaly, NamesTheFirstOpThatMadeANaN) {
  const Tensor x = values({3}, -1);
  sum(sqrt(x)).backward();  // gives no error without anomaly detection
  const DetectAnomaly on;
  expect_error([&] { exp(log(x * 1.0) * 2.0); }, "log: its result (shape (3)) has a NaN at element 0");
  const Tensor zero = Tensor::zeros({2}, DType::kFloat64).set_requires_grad(true);
  expect_error([&] { sum(mul(sqrt(zero), 0.0)).backward(); }, "sqrt: its backward");
}

TEST(Anomaly, DoesNotBlameWhatPassesANaNOn) {
  const DetectAnomaly on;
  const Tensor bad = Tensor::full({2}, NAN, DType::kFloat64), x = values({2}, 1);
  Tensor y = x * 1.0;
  copy_(y, bad);
  add_(y, 1.0);
  const Tensor z = x * 1.0;
  add_(z, bad);
  backward(x * 2.0, bad);
  expect_error([&] { log_(neg(exp(x) * 1.0)); }, "log");
}

TEST(Leaves, AFrozenOneTakesNoMoreGradients) {
  Tensor x = values({2}, 1);
  const Tensor y = sum(x * 2.0);
  x.set_requires_grad(false);
  y.backward();
  EXPECT_FALSE(x.grad().defined());
}

TEST(Leaves, UndefinedTensorsSaySo) {
  const Tensor none;
  for (const auto& use : std::vector<std::function<void()>>{
           [&] { none.shape(); }, [&] { none.dtype(); }, [&] { none.numel(); },
           [&] { none.to_vector<float>(); }, [&] { none.clone(); }, [&] { none.detach(); },
           [&] { none.grad(); }, [&] { none.set_grad({}); }, [&] { none.is_leaf(); },
           [&] { none.data<float>(); }, [&] { none.item(); }, [&] { memory_of(none); },
           [&] { Tensor().set_requires_grad(true); }, [&] { to_dtype(none, DType::kInt64); },
           [&] { copy_into(none, none); }})
    EXPECT_NE(test::error_of(use).find("undefined"), std::string::npos);
}

// An earlier pass does not need the gradient of a view. A later pass needs it, for an in-place change through
// the view.
TEST(Views, AChangeAfterAPassThatLeftTheViewOut) {
  const Tensor x = values({2}, 1), z = values({}, 3);
  const Tensor y = x * 2.0, v = narrow(y, 0, 0, 1), s = sum(v) * z;
  grad(s, {z}, {}, {.retain_graph = true});
  mul_(v, 3.0);
  sum(y).backward();
  EXPECT_EQ(x.grad().to_vector<double>(), (Doubles{6, 2}));
}

TEST(Views, ResultsOverOtherDimensionsAreRowMajorToo) {
  const Tensor x = values({2, 3}, 1, false);
  for (const Tensor& y : {cumsum(x, 0), softmax(x, 0), log_softmax(x, 0)}) EXPECT_TRUE(y.is_contiguous());
}

TEST(Anomaly, FindsWhatASumOfGradientsMakes) {
  const DetectAnomaly on;
  const Tensor x = values({1}, 1), y = x * 1.0;
  const Tensor up = y * std::numeric_limits<double>::infinity(),
               down = y * -std::numeric_limits<double>::infinity();
  expect_error([&] { backward(std::vector{up, down}); }, "has a NaN");
}

TEST(Anomaly, BlamesAnOpInPlace) {
  const DetectAnomaly on;
  Tensor y = values({2}, 1) * 0.0;
  expect_error([&] { mul_(y, INFINITY); }, "mul_: its result");
}

}  // namespace
}  // namespace trireme
