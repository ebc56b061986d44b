// A row is a line, however long.
// clang-format off
// Op test table: cells of recurrent networks.
#include <cmath>

#include "tests/support/op_table.h"

namespace trireme::test {

namespace {

double logistic(double x) { return 1 / (1 + std::exp(-x)); }

/// Computes w x + b for x (N,in).
Array product(const Array& x, const Array& w, const Array* b) {
  Array y({x.shape[0], w.shape[0]});
  for (std::int64_t i = 0; i < y.size(); ++i) {
    const std::int64_t n = i / w.shape[0], row = i % w.shape[0];
    y[i] = b ? (*b)[row] : 0;
    for (std::int64_t k = 0; k < x.shape[1]; ++k) y[i] += x[n * x.shape[1] + k] * w[row * x.shape[1] + k];
  }
  return y;
}

Array sum_of(Array a, const Array& b) {
  for (std::int64_t i = 0; i < a.size(); ++i) a[i] += b[i];
  return a;
}

/// Returns the new h and the new c side by side: (N,2H).
Array lstm(const Array& gates, const Array& c) {
  const std::int64_t width = c.shape[1];
  Array y({c.shape[0], 2 * width});
  for (std::int64_t i = 0; i < c.size(); ++i) {
    const std::int64_t n = i / width, k = i % width;
    const auto gate = [&](std::int64_t which) { return gates[(n * 4 + which) * width + k]; };
    const double now = logistic(gate(1)) * c[i] + logistic(gate(0)) * std::tanh(gate(2));
    y[n * 2 * width + width + k] = now;
    y[n * 2 * width + k] = logistic(gate(3)) * std::tanh(now);
  }
  return y;
}

Array gru(const Array& gi, const Array& gh, const Array& h) {
  const std::int64_t width = h.shape[1];
  Array y(h.shape);
  for (std::int64_t i = 0; i < h.size(); ++i) {
    const std::int64_t n = i / width, k = i % width;
    const auto at = [&](const Array& gates, std::int64_t which) { return gates[(n * 3 + which) * width + k]; };
    const double reset = logistic(at(gi, 0) + at(gh, 0)), keep = logistic(at(gi, 1) + at(gh, 1));
    y[i] = (1 - keep) * std::tanh(at(gi, 2) + reset * at(gh, 2)) + keep * h[i];
  }
  return y;
}

Tensor joined(const LstmState& state) { return cat({state.h, state.c}, 1); }

OpRow fused_lstm_row() {
  OpRow row{.declaration = "lstm_cell(Tensor, Tensor)"};
  for (const auto& [n, h] : {std::pair{3, 5}, {1, 1}, {2, 20}, {0, 3}})
    row.cases.push_back({"gates", {{{n, 4 * h}, -3, 3}, {{n, h}, -2, 2}}, [](const Tensors& in) { return joined(lstm_cell(in[0], in[1])); }, [](const Arrays& in) { return lstm(in[0], in[1]); }});
  // These cases use only one of the two results.
  row.cases.push_back({"h", {{{2, 8}}, {{2, 2}}}, [](const Tensors& in) { return lstm_cell(in[0], in[1]).h; },
                       [](const Arrays& in) { const Array y = lstm(in[0], in[1]); Array h({2, 2}); for (std::int64_t i = 0; i < 4; ++i) h[i] = y[i / 2 * 4 + i % 2]; return h; }});
  row.cases.push_back({"c", {{{2, 8}}, {{2, 2}}}, [](const Tensors& in) { return lstm_cell(in[0], in[1]).c; },
                       [](const Arrays& in) { const Array y = lstm(in[0], in[1]); Array c({2, 2}); for (std::int64_t i = 0; i < 4; ++i) c[i] = y[i / 2 * 4 + 2 + i % 2]; return c; }});
  row.bad.push_back({[] { lstm_cell(Tensor::zeros({2, 6}), Tensor::zeros({2, 2})); }, {"lstm_cell:", "(2, 6)", "(2, 2)", "(N,4H)"}});
  return row;
}

OpRow fused_gru_row() {
  OpRow row{.declaration = "gru_cell(Tensor, Tensor, Tensor)"};
  for (const auto& [n, h] : {std::pair{3, 5}, {1, 1}, {2, 20}, {0, 3}})
    row.cases.push_back({"gates", {{{n, 3 * h}, -3, 3}, {{n, 3 * h}, -3, 3}, {{n, h}, -2, 2}}, [](const Tensors& in) { return gru_cell(in[0], in[1], in[2]); }, [](const Arrays& in) { return gru(in[0], in[1], in[2]); }});
  row.bad.push_back({[] { gru_cell(Tensor::zeros({2, 4}), Tensor::zeros({2, 6}), Tensor::zeros({2, 2})); }, {"gru_cell:", "gi (2, 4)", "(2, 2)"}});
  row.bad.push_back({[] { gru_cell(Tensor::zeros({2, 6}), Tensor::zeros({2, 4}), Tensor::zeros({2, 2})); }, {"gru_cell:", "gh (2, 4)", "(2, 2)"}});
  return row;
}

using CellCall = std::function<Tensor(const Tensor& x, const Tensor& h, const Tensor& c, const Tensor& w_ih, const Tensor& w_hh, const Tensor& b_ih, const Tensor& b_hh)>;
using CellReference = std::function<Array(const Array& gi, const Array& gh, const Arrays& in)>;

/// Returns the row of a cell. Inputs are x, h, the weights, the biases (if any), and c if it is an LSTM.
OpRow cell_row(const std::string& declaration, std::int64_t gates, bool has_c, const CellCall& call, const CellReference& reference) {
  OpRow row{.declaration = declaration};
  const std::int64_t n = 3, width = 2, from = 4;
  const std::string name = row.name() + ":";
  for (const bool biased : {true, false}) {
    std::vector<Input> inputs{{{n, from}}, {{n, width}}, {{gates * width, from}}, {{gates * width, width}}};
    for (int i = 0; i < 2 && biased; ++i) inputs.push_back({{gates * width}, -1, 1, Kind::kOptional});
    if (has_c) inputs.push_back({{n, width}});
    row.cases.push_back({biased ? "biased" : "no bias", inputs,
                         [=](const Tensors& in) { return call(in[0], in[1], in.back(), in[2], in[3], biased ? in[4] : Tensor(), biased ? in[5] : Tensor()); },
                         [=](const Arrays& in) { return reference(product(in[0], in[2], biased ? &in[4] : nullptr), product(in[1], in[3], biased ? &in[5] : nullptr), in); }});
  }
  const auto bad = [=](const Shape& x, const Shape& h, const Shape& w_ih, const Shape& b) {
    return [=] { call(Tensor::zeros(x), Tensor::zeros(h), Tensor::zeros(h), Tensor::zeros(w_ih), Tensor::zeros({gates * width, width}), Tensor::zeros(b), {}); };
  };
  row.bad = {{bad({3, 4}, {2, 2}, {gates * 2, 4}, {gates * 2}), {name, "(3, 4)", "(2, 2)", "samples"}},
             {bad({3, 4}, {3, 2}, {gates * 2, 5}, {gates * 2}), {name, "w_ih", "5)", "(3, 4)"}},
             {bad({3, 4}, {3, 2}, {gates * 2, 4}, {gates * 2 + 1}), {name, "bias", fmt::format("({})", gates * 2 + 1)}},
             {bad({4}, {3, 2}, {gates * 2, 4}, {gates * 2}), {name, "(4)", "2 dimensions"}}};
  return row;
}

}  // namespace

std::vector<OpRow> recurrent_rows() {
  const std::string weights = "Tensor, Tensor, Tensor, Tensor)";
  const auto plain = [](double (*fn)(double)) {
    return [fn](const Array& gi, const Array& gh, const Arrays&) { Array y = sum_of(gi, gh); for (double& v : y.values) v = fn(v); return y; };
  };
  return {fused_lstm_row(), fused_gru_row(),
          cell_row("lstm_cell(Tensor, Tensor, Tensor, " + weights, 4, true, [](auto& x, auto& h, auto& c, auto& w, auto& u, auto& b, auto& d) { return joined(lstm_cell(x, h, c, w, u, b, d)); },
                   [](const Array& gi, const Array& gh, const Arrays& in) { return lstm(sum_of(gi, gh), in.back()); }),
          cell_row("gru_cell(Tensor, Tensor, " + weights, 3, false, [](auto& x, auto& h, auto&, auto& w, auto& u, auto& b, auto& d) { return gru_cell(x, h, w, u, b, d); },
                   [](const Array& gi, const Array& gh, const Arrays& in) { return gru(gi, gh, in[1]); }),
          cell_row("rnn_tanh_cell(Tensor, Tensor, " + weights, 1, false, [](auto& x, auto& h, auto&, auto& w, auto& u, auto& b, auto& d) { return rnn_tanh_cell(x, h, w, u, b, d); }, plain([](double v) { return std::tanh(v); })),
          cell_row("rnn_relu_cell(Tensor, Tensor, " + weights, 1, false, [](auto& x, auto& h, auto&, auto& w, auto& u, auto& b, auto& d) { return rnn_relu_cell(x, h, w, u, b, d); }, plain([](double v) { return std::fmax(v, 0); }))};
}

}  // namespace trireme::test
