// A row is a line, however long.
// clang-format off
// Op test table: losses and random numbers.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "tests/support/op_table.h"

namespace trireme::test {

namespace {

/// Log-probabilities of rows.
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

OpRow softmax_row(const std::string& name, Tensor (*op)(const Tensor&), bool in_logarithms) {
  OpRow row{.declaration = name + "(Tensor)"};
  for (const Shape& shape : {Shape{3, 4}, Shape{5}, Shape{2, 3, 2}, Shape{0, 3}, Shape{3, 0}, Shape{2, 1}})
    row.cases.push_back({shape.to_string(), {{shape, -3, 3}}, [op](const Tensors& in) { return op(in[0]); }, [in_logarithms](const Arrays& in) {
                           Array y = log_softmax_reference(in[0]);
                           if (!in_logarithms)
                             for (double& v : y.values) v = std::exp(v);
                           return y;
                         }});
  row.bad.push_back({[op] { op(Tensor::scalar(1)); }, {"softmax:", "()"}});
  return row;
}

OpRow cross_entropy_row() {
  OpRow row{.declaration = "cross_entropy(Tensor, Tensor, double)", .second = Second::kThrows};
  for (const double smoothing : {0.0, 0.1, 1.0})
    for (const Shape& shape : {Shape{4, 5}, Shape{1, 3}, Shape{3, 1}})
      row.cases.push_back({fmt::format("{} smoothing {}", shape.to_string(), smoothing),
                           {{shape, -3, 3}, {{shape[0]}, 0, static_cast<double>(shape[1]), Kind::kLabel}},
                           [smoothing](const Tensors& in) { return cross_entropy(in[0], in[1], smoothing); },
                           [smoothing](const Arrays& in) {
                             const Array lp = log_softmax_reference(in[0]);
                             const std::int64_t rows = lp.shape[0], classes = lp.shape[1];
                             Array y{Shape{}};
                             for (std::int64_t i = 0; i < lp.size(); ++i) {
                               const bool hit = i % classes == static_cast<std::int64_t>(in[1][i / classes]);
                               const double wanted = (hit ? 1 - smoothing : 0) + smoothing / static_cast<double>(classes);
                               y[0] -= wanted * lp[i] / static_cast<double>(rows);
                             }
                             return y;
                           }});
  const auto labels = [](std::vector<std::int64_t> values) { return Tensor::from(values, {static_cast<std::int64_t>(values.size())}); };
  row.bad.push_back({[=] { cross_entropy(Tensor::zeros({2, 3}), labels({0, 1, 2})); }, {"cross_entropy:", "(2, 3)", "(3)"}});
  row.bad.push_back({[=] { cross_entropy(Tensor::zeros({2, 3}), labels({0, 3})); }, {"cross_entropy:", "label 3", "row 1", "0..2"}});
  row.bad.push_back({[=] { cross_entropy(Tensor::zeros({2, 3}), labels({-1, 0})); }, {"cross_entropy:", "label -1", "row 0"}});
  row.bad.push_back({[=] { cross_entropy(Tensor::zeros({2, 3}), Tensor::zeros({2})); }, {"cross_entropy:", "int64", "float32"}});
  row.bad.push_back({[=] { cross_entropy(Tensor::zeros({6}), labels({0})); }, {"cross_entropy:", "(6)"}});
  row.bad.push_back({[=] { cross_entropy(Tensor::zeros({2, 3}), labels({0, 1}), 1.5); }, {"cross_entropy:", "1.5"}});
  return row;
}

OpRow mse_row() {
  OpRow row{.declaration = "mse_loss(Tensor, Tensor)"};
  for (const Shape& shape : {Shape{3, 4}, Shape{}, Shape{2, 3, 2, 2}})
    row.cases.push_back({shape.to_string(), {{shape}, {shape}}, [](const Tensors& in) { return mse_loss(in[0], in[1]); }, [](const Arrays& in) {
                           Array y{Shape{}};
                           for (std::int64_t i = 0; i < in[0].size(); ++i)
                             y[0] += (in[0][i] - in[1][i]) * (in[0][i] - in[1][i]) / static_cast<double>(in[0].size());
                           return y;
                         }});
  row.bad.push_back({[] { mse_loss(Tensor::zeros({2, 3}), Tensor::zeros({3})); }, {"mse_loss:", "(2, 3)", "(3)"}});
  row.bad.push_back({[] { mse_loss(Tensor::zeros({2}), Tensor::zeros({2}, DType::kFloat64)); }, {"mse_loss:", "float32", "float64"}});
  return row;
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

/// Rows of generators: the one input only carries the shape and dtype.
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
  return {softmax_row("log_softmax", log_softmax, true), softmax_row("softmax", softmax, false), cross_entropy_row(), mse_row()};
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
