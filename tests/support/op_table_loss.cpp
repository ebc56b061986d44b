// A row is a line, however long.
// clang-format off
// Op test table: losses and random numbers.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "tests/support/op_table.h"

namespace trireme::test {

namespace {

/// Returns the log-probabilities of each row of logits.
Array log_softmax_reference(const Array& x) {
  Array y(x.shape);
  const std::int64_t width = x.shape[x.shape.size() - 1];
  for (std::int64_t r = 0; width && r < x.size() / width; ++r) {
    double sum = 0;
    for (std::int64_t k = 0; k < width; ++k) sum += std::exp(x[r * width + k]);
    for (std::int64_t k = 0; k < width; ++k) y[r * width + k] = x[r * width + k] - std::log(sum);
  }
  return y;
}

OpRow softmax_row(const std::string& name, Tensor (*op)(const Tensor&, int), bool in_logarithms) {
  OpRow row{.declaration = name + "(Tensor, int)"};
  for (const Shape& shape : {Shape{3, 4}, Shape{5}, Shape{2, 3, 2}, Shape{0, 3}, Shape{3, 0}, Shape{2, 1}})
    row.cases.push_back({shape.to_string(), {{shape, -3, 3}}, [op](const Tensors& in) { return op(in[0], -1); }, [in_logarithms](const Arrays& in) {
                           Array y = log_softmax_reference(in[0]);
                           if (!in_logarithms)
                             for (double& v : y.values) v = std::exp(v);
                           return y;
                         }});
  row.cases.push_back({"first dimension", {{{2, 3}}}, [op](const Tensors& in) { return transpose(op(in[0], 0), 0, 1); }, [in_logarithms](const Arrays& in) {
                         Array turned({3, 2});
                         for (std::int64_t i = 0; i < 6; ++i) turned[i] = in[0][i % 2 * 3 + i / 2];
                         Array y = log_softmax_reference(turned);
                         if (!in_logarithms)
                           for (double& v : y.values) v = std::exp(v);
                         return y;
                       }});
  row.bad.push_back({[op] { op(Tensor::scalar(1), 1); }, {"softmax:", "dimension 1"}});
  return row;
}

struct Losses {
  double smoothing = 0;
  bool weighted = false;
  std::int64_t ignored = -100;
  LossReduction reduction = LossReduction::kMean;
};

/// Computes the loss from log-probabilities (N,C) and labels (N).
Array nll_reference(const Array& lp, const Array& labels, const Losses& o) {
  const std::int64_t rows = lp.shape[0], classes = lp.shape[1];
  const auto weight = [&](std::int64_t k) { return o.weighted ? 0.5 + static_cast<double>(k) : 1.0; };
  Array y(o.reduction == LossReduction::kNone ? Shape{rows} : Shape{});
  double total = 0;
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto label = static_cast<std::int64_t>(labels[r]);
    if (label == o.ignored) continue;
    total += weight(label);
    for (std::int64_t k = 0; k < classes; ++k)
      y[o.reduction == LossReduction::kNone ? r : 0] -= weight(k) * ((k == label ? 1 - o.smoothing : 0) + o.smoothing / static_cast<double>(classes)) * lp[r * classes + k];
  }
  if (o.reduction == LossReduction::kMean) y[0] /= total;
  return y;
}

CrossEntropyOptions options_of(const Losses& o, const Tensor& logits) {
  CrossEntropyOptions options{.label_smoothing = o.smoothing, .weight = {}, .ignore_index = o.ignored, .reduction = o.reduction};
  if (o.weighted) options.weight = beside({logits}, to(add(arange(0, static_cast<double>(logits.size(1)), 1, DType::kFloat64), 0.5), logits.dtype()));
  return options;
}

template <class Op>
OpRow class_row(const std::string& name, Op op, bool from_logits) {
  OpRow row{.declaration = name + "(Tensor, Tensor, CrossEntropyOptions)"};
  for (const Losses& o : {Losses{}, Losses{0.1}, Losses{1.0}, Losses{0.1, true}, Losses{0, false, 2}, Losses{0.2, true, 1, LossReduction::kNone}, Losses{0, false, -100, LossReduction::kSum}})
    for (const Shape& shape : {Shape{4, 5}, Shape{1, 3}, Shape{3, 1}})
      row.cases.push_back({fmt::format("{} smoothing {} ignoring {}", shape.to_string(), o.smoothing, o.ignored),
                           {{shape, -3, 3}, {{shape[0]}, 0, static_cast<double>(shape[1]), Kind::kLabel}},
                           [op, o](const Tensors& in) { return op(in[0], in[1], options_of(o, in[0])); },
                           [=](const Arrays& in) { return nll_reference(from_logits ? log_softmax_reference(in[0]) : in[0], in[1], o); }});
  const auto labels = [](std::vector<std::int64_t> values) { return Tensor::from(values, {static_cast<std::int64_t>(values.size())}); };
  row.bad.push_back({[=] { op(Tensor::zeros({2, 3}), labels({0, 1, 2}), {}); }, {name + ":", "(2, 3)", "(3)"}});
  row.bad.push_back({[=] { op(Tensor::zeros({2, 3}), labels({0, 3}), {}); }, {name + ":", "label 3", "row 1", "0..2"}});
  row.bad.push_back({[=] { op(Tensor::zeros({2, 3}), labels({-1, 0}), {}); }, {name + ":", "label -1", "row 0"}});
  row.bad.push_back({[=] { op(Tensor::zeros({2, 3}), Tensor::zeros({2}), {}); }, {name + ":", "int64", "float32"}});
  row.bad.push_back({[=] { op(Tensor::zeros({6}), labels({0}), {}); }, {name + ":", "(6)"}});
  row.bad.push_back({[=] { op(Tensor::zeros({2, 3}), labels({0, 1}), {.label_smoothing = 1.5}); }, {name + ":", "1.5"}});
  row.bad.push_back({[=] { op(Tensor::zeros({2, 3}), labels({0, 1}), {.weight = Tensor::ones({2})}); }, {name + ":", "weight (2)", "3 classes"}});
  return row;
}

OpRow cross_entropy_row() {
  OpRow row = class_row("cross_entropy", cross_entropy, true);
  row.cases.push_back({"images", {{{2, 3, 2, 2}}, {{2, 2, 2}, 0, 3, Kind::kLabel}}, [](const Tensors& in) { return cross_entropy(in[0], in[1], {.label_smoothing = 0.1, .reduction = LossReduction::kNone}); }, [](const Arrays& in) {
                         Array rows({8, 3});
                         for (std::int64_t i = 0; i < 24; ++i) rows[i] = in[0].at({i / 12, i % 3, i / 6 % 2, i / 3 % 2});
                         return same_order(nll_reference(log_softmax_reference(rows), in[1], {0.1, false, -100, LossReduction::kNone}), {2, 2, 2});
                       }});
  return row;
}

/// Returns the row of a loss that compares two tensors element by element.
OpRow pair_row(const std::string& declaration, const std::function<Tensor(const Tensor&, const Tensor&, LossReduction)>& op, const std::function<double(double, double)>& fn,
               double low = -1, double high = 1) {
  OpRow row{.declaration = declaration};
  for (const LossReduction reduction : {LossReduction::kMean, LossReduction::kSum, LossReduction::kNone})
    for (const Shape& shape : {Shape{3, 4}, Shape{}, Shape{2, 3, 2, 2}})
      row.cases.push_back({shape.to_string(), {{shape}, {shape, low, high}}, [op, reduction](const Tensors& in) { return op(in[0], in[1], reduction); }, [fn, reduction](const Arrays& in) {
                             Array y(reduction == LossReduction::kNone ? in[0].shape : Shape{});
                             for (std::int64_t i = 0; i < in[0].size(); ++i)
                               y[reduction == LossReduction::kNone ? i : 0] += fn(in[0][i], in[1][i]) / (reduction == LossReduction::kMean ? static_cast<double>(in[0].size()) : 1);
                             return y;
                           }});
  const std::string name = row.name();
  row.bad.push_back({[op] { op(Tensor::zeros({2, 3}), Tensor::zeros({3}), LossReduction::kMean); }, {name + ":", "(2, 3)", "(3)"}});
  row.bad.push_back({[op] { op(Tensor::zeros({2}), Tensor::zeros({2}, DType::kFloat64), LossReduction::kMean); }, {name + ":", "float32", "float64"}});
  return row;
}

std::vector<OpRow> pair_rows() {
  return {pair_row("mse_loss(Tensor, Tensor, LossReduction)", mse_loss, [](double x, double y) { return (x - y) * (x - y); }),
          pair_row("l1_loss(Tensor, Tensor, LossReduction)", l1_loss, [](double x, double y) { return std::fabs(x - y); }),
          pair_row("huber_loss(Tensor, Tensor, double, LossReduction)", [](const Tensor& x, const Tensor& y, LossReduction r) { return huber_loss(x, y, 0.5, r); },
                   [](double x, double y) { return std::fabs(x - y) < 0.5 ? (x - y) * (x - y) / 2 : 0.5 * (std::fabs(x - y) - 0.25); }),
          pair_row("bce_with_logits(Tensor, Tensor, LossReduction)", bce_with_logits, [](double x, double y) { return -y * std::log(1 / (1 + std::exp(-x))) - (1 - y) * std::log(1 / (1 + std::exp(x))); }, 0, 1),
          pair_row("kl_div(Tensor, Tensor, LossReduction)", kl_div, [](double x, double y) { return y * (std::log(y) - x); }, 0.1, 1)};
}

constexpr RandomKey kKey = random_key(7, 8, 9);

OpRow dropout_row() {
  OpRow row{.declaration = "dropout(Tensor, double, RandomKey, std::int64_t)"};
  for (const double p : {0.0, 0.3, 0.75, 1.0})
    for (const Shape& shape : {Shape{3, 7}, Shape{}, Shape{0, 3}, Shape{2, 3, 2, 2}, Shape{3, 0}})
      row.cases.push_back({fmt::format("{} p {}", shape.to_string(), p), {{shape}},
                           [p](const Tensors& in) { return dropout(in[0], p, kKey, 11); },
                           [p](const Arrays& in) {
                             const Array& x = in[0];
                             Array y(x.shape);
                             const std::int64_t samples = x.shape.size() ? x.shape[0] : 1;
                             for (std::int64_t i = 0; i < x.size(); ++i) {
                               const std::int64_t width = x.size() / samples, e = i % width;
                               const auto bits = philox(kKey, static_cast<std::uint64_t>(11 + i / width), static_cast<std::uint64_t>(e / 4));
                               const double u = static_cast<double>(bits[static_cast<std::size_t>(e % 4)]) / 4294967296.0;
                               y[i] = u < std::floor(p * 4294967296.0) / 4294967296.0 ? 0 : x[i] / (1 - p);
                             }
                             return y;
                           }});
  row.bad.push_back({[] { dropout(Tensor::zeros({2}), 1.5, kKey); }, {"dropout:", "1.5"}});
  row.bad.push_back({[] { dropout(Tensor::zeros({2}), -0.5, kKey); }, {"dropout:", "-0.5"}});
  return row;
}

/// Returns the row of a function that makes a tensor. Its only input gives the shape and dtype.
OpRow generator_row(const std::string& name, const std::function<Tensor(const Shape&, DType)>& make,
                    const std::function<double(double, double)>& value) {
  OpRow row{.declaration = name + "(Shape, RandomKey, double, double, DType)", .second = Second::kNone};
  for (const Shape& shape : {Shape{3, 4}, Shape{}, Shape{0, 3}, Shape{1000}})
    row.cases.push_back({shape.to_string(), {{shape, 0, 1, Kind::kPlaceholder}},
                         [make](const Tensors& in) { return make(in[0].shape(), in[0].dtype()); },
                         [value](const Arrays& in) {
                           Array y(in[0].shape);
                           for (std::int64_t i = 0; i < y.size(); ++i) {
                             const auto bits = philox(kKey, 0, static_cast<std::uint64_t>(i));
                             y[i] = value(to_unit_double(bits[0], bits[1]), to_unit_double(bits[2], bits[3]));
                           }
                           return y;
                         }});
  row.bad.push_back({[make] { make({-1}, DType::kFloat32); }, {"(-1)"}});
  return row;
}

}  // namespace

std::vector<OpRow> loss_rows() {
  std::vector<OpRow> rows{softmax_row("log_softmax", log_softmax, true), softmax_row("softmax", softmax, false), cross_entropy_row(), class_row("nll_loss", nll_loss, false)};
  for (const OpRow& row : pair_rows()) rows.push_back(row);
  return rows;
}

std::vector<OpRow> random_rows() {
  return {dropout_row(),
          generator_row("uniform", [](const Shape& s, DType d) { return uniform(s, kKey, -2, 3, d); },
                        [](double u, double) { return -2 + 5 * u; }),
          generator_row("normal", [](const Shape& s, DType d) { return normal(s, kKey, 1, 2, d); }, [](double u, double v) {
            return 1 + 2 * std::sqrt(-2 * std::log(1 - u)) * std::cos(2 * std::numbers::pi * v);
          })};
}

}  // namespace trireme::test
