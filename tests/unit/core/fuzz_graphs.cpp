// Compares random programs of ops over random shapes with the dual numbers of tests/support/duals.h.
//
// A graph's result must be the reference's value, and its gradient times a random direction must be the
// reference's derivative along that direction. TRIREME_SEED=N runs only the graph of seed N, TRIREME_GRAPHS=N
// sets the number of graphs, and TRIREME_FIRST=N the first seed.
#include <gtest/gtest.h>

#include <cstdlib>
#include <numeric>

#include "tests/unit/core/random_graph.h"
#include "tests/unit/core/random_layers.h"

namespace trireme {
namespace {

using test::build;
using test::chain;
using test::Dual;
using test::Duals;
using test::Graph;
using test::Index;
using test::Lane;
using test::map_lanes;
using test::Node;
using test::suits;

// --- elementwise

struct Unary {
  const char* name;
  Tensor (*op)(const Tensor&);
  Dual (*reference)(Dual);
  double low, high;  ///< range of the values that the op is run on
  std::vector<double> kinks = {};
};

double sigmoid_of(double x) { return 1 / (1 + std::exp(-x)); }

const std::vector<Unary>& unaries() {
  static const std::vector<Unary> all = {
      {"neg", neg, [](Dual x) { return chain(x, -x.v, -1); }, -50, 50},
      {"abs", abs, [](Dual x) { return chain(x, std::abs(x.v), x.v < 0 ? -1 : 1); }, -50, 50, {0}},
      {"square", square, [](Dual x) { return x * x; }, -5, 5},
      {"relu", relu, [](Dual x) { return x.v > 0 ? x : Dual(); }, -50, 50, {0}},
      {"exp", exp, [](Dual x) { return test::exp(x); }, -5, 3},
      {"log", log, [](Dual x) { return test::log(x); }, 0.1, 50},
      {"log1p", log1p, [](Dual x) { return chain(x, std::log1p(x.v), 1 / (1 + x.v)); }, -0.8, 50},
      {"sqrt", sqrt, [](Dual x) { return test::sqrt(x); }, 0.1, 50},
      {"reciprocal", reciprocal,
       [](Dual x) {
         return Dual{1, 0} / x;
       },
       0.2, 50},
      {"sin", sin, [](Dual x) { return chain(x, std::sin(x.v), std::cos(x.v)); }, -9, 9},
      {"tanh", tanh, [](Dual x) { return chain(x, std::tanh(x.v), 1 - std::pow(std::tanh(x.v), 2)); }, -9, 9},
      {"sigmoid", sigmoid,
       [](Dual x) { return chain(x, sigmoid_of(x.v), sigmoid_of(x.v) * (1 - sigmoid_of(x.v))); }, -9, 9},
      {"softplus", softplus, [](Dual x) { return chain(x, std::log1p(std::exp(x.v)), sigmoid_of(x.v)); }, -9,
       9},
      {"erf", erf, [](Dual x) { return chain(x, std::erf(x.v), 2 / std::sqrt(M_PI) * std::exp(-x.v * x.v)); },
       -4, 4},
      {"silu", silu,
       [](Dual x) { return x * chain(x, sigmoid_of(x.v), sigmoid_of(x.v) * (1 - sigmoid_of(x.v))); }, -9, 9},
      {"clamp",
       [](const Tensor& x) { return clamp(x, -0.5, 0.75); },
       [](Dual x) {
         return x.v < -0.5 ? Dual{-0.5, 0} : x.v > 0.75 ? Dual{0.75, 0} : x;
       },
       -50,
       50,
       {-0.5, 0.75}},
      {"leaky_relu",
       [](const Tensor& x) { return leaky_relu(x, 0.1); },
       [](Dual x) { return x.v > 0 ? x : chain(x, 0.1 * x.v, 0.1); },
       -50,
       50,
       {0}},
      {"x**3", [](const Tensor& x) { return pow(x, 3); }, [](Dual x) { return x * x * x; }, -3, 3},
      {"2-x", [](const Tensor& x) { return 2 - x; },
       [](Dual x) {
         return Dual{2, 0} - x;
       },
       -50, 50},
      {"clone", [](const Tensor& x) { return x.clone(); }, [](Dual x) { return x; }, -50, 50},
  };
  return all;
}

void run_unary(Graph& g) {
  const Unary& u = unaries()[static_cast<std::size_t>(g.pick(static_cast<std::int64_t>(unaries().size())))];
  const Node x = g.any();
  if (!suits(g, x.reference, u.low, u.high, u.kinks)) return;
  g.result(u.name, u.op(x.tensor),
           build(x.reference.shape, [&](const Index& i) { return u.reference(x.reference.at(i)); }));
}

void run_binary(Graph& g) {
  Node a = g.any(), b = g.broadcastable(a.tensor.shape());
  if (g.coin()) std::swap(a, b);
  const Shape shape = broadcast_shapes(a.tensor.shape(), b.tensor.shape(), "fuzz");
  const auto with = [&](const char* name, const Tensor& out, const std::function<Dual(Dual, Dual)>& fn) {
    g.result(name, out,
             build(shape, [&](const Index& i) { return fn(a.reference.at(i), b.reference.at(i)); }));
  };
  const Duals gaps = build(shape, [&](const Index& i) { return a.reference.at(i) - b.reference.at(i); });
  const bool apart = suits(g, gaps, -1e9, 1e9, {0});
  switch (g.pick(7)) {
    case 0:
      return with("add", a.tensor + b.tensor, [](Dual p, Dual q) { return p + q; });
    case 1:
      return with("sub", a.tensor - b.tensor, [](Dual p, Dual q) { return p - q; });
    case 2:
      return with("mul", a.tensor * b.tensor, [](Dual p, Dual q) { return p * q; });
    case 3:
      if (!suits(g, b.reference, 0.2, 50, {})) return;
      return with("div", a.tensor / b.tensor, [](Dual p, Dual q) { return p / q; });
    case 4:
      if (!apart) return;
      return with("maximum", maximum(a.tensor, b.tensor), [](Dual p, Dual q) { return p.v > q.v ? p : q; });
    case 5:
      if (!apart) return;
      return with("where", where(lt(a.tensor, b.tensor), a.tensor, mul(b.tensor, 2)),
                  [](Dual p, Dual q) { return p.v < q.v ? p : q + q; });
    default:
      return with("lerp", lerp(a.tensor, b.tensor, 0.25), [](Dual p, Dual q) {
        return p + Dual{0.25, 0} * (q - p);
      });
  }
}

// --- shape

void run_rearrange(Graph& g) {
  const Node x = g.any();
  const int dims = x.tensor.dim();
  if (dims == 0) return;
  std::vector<int> order(static_cast<std::size_t>(dims));
  std::iota(order.begin(), order.end(), 0);
  for (std::size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[static_cast<std::size_t>(g.pick(static_cast<std::int64_t>(i)))]);
  Shape shape;
  for (const int d : order) shape.push_back(x.tensor.shape()[d]);
  Duals turned = build(shape, [&](const Index& i) {
    Index from(i.size());
    for (std::size_t d = 0; d < i.size(); ++d) from[static_cast<std::size_t>(order[d])] = i[d];
    return x.reference.at(from);
  });
  const Tensor permuted = permute(x.tensor, order);
  if (g.coin()) return g.result("permute", permuted, turned);
  const std::int64_t all = shape.numel();
  const std::int64_t rows = all % 2 == 0 && g.coin() ? 2 : 1;
  turned.shape = {rows, all / rows};
  g.result("reshape", reshape(permuted, {rows, -1}), turned);
}

Lane exponentials(const Lane& lane) {
  Lane out;
  for (const Dual v : lane) out.push_back(test::exp(v));
  return out;
}

void run_along(Graph& g) {
  const Node x = g.any();
  if (x.tensor.dim() == 0) return;
  const int dim = g.dim_of(x);
  const std::int64_t size = x.tensor.size(dim);
  const auto with = [&](const char* name, const Tensor& out, const std::function<Lane(const Lane&)>& fn) {
    g.result(name, out, map_lanes(x.reference, dim, fn));
  };
  switch (g.pick(8)) {
    case 0:
      return with("flip", flip(x.tensor, {dim}), [](const Lane& l) { return Lane(l.rbegin(), l.rend()); });
    case 1: {
      const std::int64_t shift = g.pick(9) - 4, left = ((shift % size) + size) % size;
      return with("roll", roll(x.tensor, shift, dim),
                  [=](Lane l) { return std::rotate(l.begin(), l.end() - left, l.end()), l; });
    }
    case 2: {
      const std::int64_t first = g.pick(size), count = 1 + g.pick(size - first);
      return with("narrow", narrow(x.tensor, dim, first, count),
                  [=](const Lane& l) { return Lane(l.begin() + first, l.begin() + first + count); });
    }
    case 3:
      return with("cumsum", cumsum(x.tensor, dim), [](Lane l) {
        for (std::size_t i = 1; i < l.size(); ++i) l[i] = l[i] + l[i - 1];
        return l;
      });
    case 4:
      return with("softmax", softmax(x.tensor, dim), [](const Lane& l) {
        Lane e = exponentials(l);
        const Dual total = test::sum(e);
        for (Dual& v : e) v = v / total;
        return e;
      });
    case 5:
      return with("log_softmax", log_softmax(x.tensor, dim), [](const Lane& l) {
        const Dual total = test::log(test::sum(exponentials(l)));
        Lane out;
        for (const Dual v : l) out.push_back(v - total);
        return out;
      });
    case 6:
      return with("cat", cat({x.tensor, mul(x.tensor, 2), x.tensor}, dim), [](const Lane& l) {
        Lane out = l;
        for (const Dual v : l) out.push_back(v + v);
        out.insert(out.end(), l.begin(), l.end());
        return out;
      });
    default: {
      std::vector<std::int64_t> picks;
      for (std::int64_t i = 0; i < 1 + g.pick(4); ++i) picks.push_back(g.pick(size));
      const Tensor index = Tensor::from(picks, {static_cast<std::int64_t>(picks.size())});
      return with("index_select", index_select(x.tensor, dim, index), [=](const Lane& l) {
        Lane out;
        for (const std::int64_t i : picks) out.push_back(l[static_cast<std::size_t>(i)]);
        return out;
      });
    }
  }
}

void run_reduce(Graph& g) {
  const Node x = g.any();
  std::vector<int> dims;
  for (int d = 0; d < x.tensor.dim(); ++d)
    if (g.coin()) dims.push_back(d);
  const bool keep = g.coin();
  const auto with = [&](const char* name, const Tensor& out, const std::function<Dual(const Lane&)>& fn) {
    g.result(name, out, test::reduce(x.reference, dims, keep, fn));
  };
  const auto mean_of = [](const Lane& l) { return test::sum(l) / Dual{static_cast<double>(l.size()), 0}; };
  switch (g.pick(5)) {
    case 0:
      return with("sum", sum(x.tensor, dims, keep), test::sum);
    case 1:
      return with("mean", mean(x.tensor, dims, keep), mean_of);
    case 2:
      return with("prod", prod(x.tensor, dims, keep), [](const Lane& l) {
        Dual product{1, 0};
        for (const Dual v : l) product = product * v;
        return product;
      });
    case 3:
      return with("var", var(x.tensor, dims, 0, keep), [&](const Lane& l) {
        Lane squares;
        for (const Dual v : l) squares.push_back((v - mean_of(l)) * (v - mean_of(l)));
        return mean_of(squares);
      });
    default: {
      if (dims.empty()) return;
      return with("logsumexp", logsumexp(x.tensor, dims, keep),
                  [](const Lane& l) { return test::log(test::sum(exponentials(l))); });
    }
  }
}

void run_matmul(Graph& g) {
  const Node x = g.any();
  if (x.tensor.dim() == 0) return;
  const std::int64_t inner = x.tensor.size(-1), columns = 1 + g.pick(4);
  const bool as_linear = g.coin();
  const Node w = g.leaf(as_linear ? Shape{columns, inner} : Shape{inner, columns});
  Shape shape = x.tensor.shape();
  shape[shape.size() - 1] = columns;
  g.result(as_linear ? "linear" : "matmul",
           as_linear ? linear(x.tensor, w.tensor) : matmul(x.tensor, w.tensor),
           build(shape, [&](const Index& i) {
             Dual total;
             for (std::int64_t k = 0; k < inner; ++k) {
               Index from = i;
               from.back() = k;
               total = total + x.reference.at(from) *
                                   w.reference.at(as_linear ? Index{i.back(), k} : Index{k, i.back()});
             }
             return total;
           }));
}

void run_norm(Graph& g) {
  const Node x = g.any();
  if (x.tensor.dim() == 0 || x.tensor.size(-1) < 2) return;
  const Node gamma = g.leaf({x.tensor.size(-1)}), beta = g.leaf({x.tensor.size(-1)});
  const double eps = 0.1;  // large, because lanes may be constant
  g.result("layer_norm", layer_norm(x.tensor, gamma.tensor, beta.tensor, eps),
           map_lanes(x.reference, x.tensor.dim() - 1, [&](const Lane& l) {
             const Dual count{static_cast<double>(l.size()), 0}, mean = test::sum(l) / count;
             Lane squares, out;
             for (const Dual v : l) squares.push_back((v - mean) * (v - mean));
             const Dual scale = test::sqrt(test::sum(squares) / count + Dual{eps, 0});
             for (std::size_t i = 0; i < l.size(); ++i)
               out.push_back((l[i] - mean) / scale * gamma.reference.values[i] + beta.reference.values[i]);
             return out;
           }));
}

/// Makes views whose elements share memory, and takes parts of them.
void run_sharing(Graph& g) {
  const Node x = g.any();
  if (x.tensor.dim() == 0 || x.tensor.dim() > 3) return;
  const int dim = g.dim_of(x);
  const auto place = static_cast<std::size_t>(dim);
  Shape shape = x.tensor.shape();
  const auto with = [&](const char* name, const Tensor& out, const std::function<Index(Index)>& source) {
    g.result(name, out, build(out.shape(), [&](const Index& i) { return x.reference.at(source(i)); }));
  };
  switch (g.pick(4)) {
    case 0: {
      shape.insert(dim, 1 + g.pick(3));
      return with("expand", expand(unsqueeze(x.tensor, dim), shape), [=](Index i) {
        i.erase(i.begin() + dim);
        return i;
      });
    }
    case 1: {
      const std::int64_t size = 1 + g.pick(shape[dim]), step = 1 + g.pick(2);
      return with("unfold", unfold(x.tensor, dim, size, step), [=](Index i) {
        i[place] = i[place] * step + i.back();
        i.pop_back();
        return i;
      });
    }
    case 2: {
      const std::int64_t at = g.pick(shape[dim]);
      return with("select", select(x.tensor, dim, at), [=](Index i) {
        i.insert(i.begin() + dim, at);
        return i;
      });
    }
    default: {
      if (x.tensor.dim() != 2) return;
      return with("diagonal", diagonal(x.tensor), [](Index i) {
        i.push_back(i[0]);
        return i;
      });
    }
  }
}

/// Changes a part of a copy in place through a view, and then all of the copy.
void run_in_place(Graph& g) {
  const Node x = g.any();
  if (x.tensor.dim() == 0) return;
  const int dim = g.dim_of(x);
  const std::int64_t first = g.pick(x.tensor.size(dim)), count = 1 + g.pick(x.tensor.size(dim) - first);
  const Tensor copy = x.tensor.clone(), part = narrow(copy, dim, first, count);
  const Node factor = g.broadcastable(part.shape());
  const bool adds = g.coin(), twice = g.coin();
  if (adds)
    add_(part, factor.tensor);
  else
    mul_(part, factor.tensor);
  if (twice) mul_(copy, 0.5);
  const auto place = static_cast<std::size_t>(dim);
  Duals changed = build(x.reference.shape, [&](const Index& i) {
    const Dual v = x.reference.at(i), scale{twice ? 0.5 : 1, 0};
    if (i[place] < first || i[place] >= first + count) return v * scale;
    Index inside = i;
    inside[place] -= first;
    const Dual f = factor.reference.at(inside);
    return (adds ? v + f : v * f) * scale;
  });
  if (g.coin()) return g.result("in place", copy, changed);
  g.result("in place, seen through the view", part, map_lanes(changed, dim, [=](const Lane& l) {
             return Lane(l.begin() + first, l.begin() + first + count);
           }));
}

void run_graph(std::uint64_t seed) {
  SCOPED_TRACE("TRIREME_SEED=" + std::to_string(seed));
  Graph g(seed);
  for (int i = 0; i < 2; ++i) g.leaf(g.random_shape(static_cast<int>(g.pick(5))));
  constexpr void (*kSteps[])(Graph&) = {run_unary,
                                        run_binary,
                                        run_rearrange,
                                        run_along,
                                        run_reduce,
                                        run_matmul,
                                        run_norm,
                                        run_in_place,
                                        run_sharing,
                                        test::run_convolution,
                                        test::run_transposed_convolution,
                                        test::run_pool,
                                        test::run_attention,
                                        test::run_batch_norm,
                                        test::run_group_norm};
  for (std::int64_t step = 1 + g.pick(12); step > 0; --step) {
    kSteps[g.pick(std::size(kSteps))](g);
    if (::testing::Test::HasFatalFailure()) return;
  }
  g.check();
}

std::uint64_t setting(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

TEST(FuzzGraphs, AgreeWithDualNumbers) {
  if (std::getenv("TRIREME_SEED")) return run_graph(setting("TRIREME_SEED", 0));
  const std::uint64_t first = setting("TRIREME_FIRST", std::random_device()());
  for (std::uint64_t i = 0; i < setting("TRIREME_GRAPHS", 1000); ++i) {
    ASSERT_NO_THROW(run_graph(first + i));
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace trireme
