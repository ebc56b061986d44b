#include "core/ops/recurrent.h"

#include "core/amp/autocast.h"
#include "core/autograd/autograd.h"
#include "core/ops/check.h"
#include "core/ops/ops.h"

namespace trireme {

namespace {

/// Gates (N, count*H) of states (N,H).
void check_gates(const char* op, const char* what, const Tensor& gates, const Tensor& state,
                 std::int64_t count) {
  check_same_kind(op, {&gates, &state});
  check_floating(op, gates);
  TRIREME_CHECK(state.dim() == 2 && gates.shape() == Shape({state.size(0), count * state.size(1)}),
                "{}: {} {} and state {} do not fit; needs (N,{}H) and (N,H)", op, what,
                gates.shape().to_string(), state.shape().to_string(), count);
}

void check_cell(const char* op, const Tensor& x, const Tensor& h, const Tensor& w_ih, const Tensor& w_hh,
                std::initializer_list<const Tensor*> biases, std::int64_t gates) {
  check_same_kind(op, {&x, &h, &w_ih, &w_hh});
  check_floating(op, x);
  check_dims(op, "x (N,in)", x, 2);
  check_dims(op, "h (N,H)", h, 2);
  const std::int64_t rows = gates * h.size(1);
  TRIREME_CHECK(x.size(0) == h.size(0), "{}: x {} and h {} differ in the number of samples", op,
                x.shape().to_string(), h.shape().to_string());
  TRIREME_CHECK(w_ih.shape() == Shape({rows, x.size(1)}) && w_hh.shape() == Shape({rows, h.size(1)}),
                "{}: w_ih {} and w_hh {} do not fit x {} and h {}; needs ({}, {}) and ({}, {})", op,
                w_ih.shape().to_string(), w_hh.shape().to_string(), x.shape().to_string(),
                h.shape().to_string(), rows, x.size(1), rows, h.size(1));
  for (const Tensor* b : biases)
    TRIREME_CHECK(!b->defined() || (b->shape() == Shape({rows}) && b->dtype() == x.dtype()),
                  "{}: bias {} does not fit w_ih {}; needs {} ({})", op,
                  b->defined() ? b->shape().to_string() : "", w_ih.shape().to_string(), name_of(x.dtype()),
                  rows);
}

/// w_ih x + b_ih + w_hh h + b_hh
Tensor both(const Tensor& x, const Tensor& h, const Tensor& w_ih, const Tensor& w_hh, const Tensor& b_ih,
            const Tensor& b_hh) {
  return add(linear(x, w_ih, b_ih), linear(h, w_hh, b_hh));
}

/// Part `index` of gates (N, count*H).
Tensor part(const Tensor& gates, std::int64_t width, int index) {
  return narrow(gates, 1, index * width, width);
}

/// sigmoid'(x) and tanh'(x) from their values.
Tensor slope_of_sigmoid(const Tensor& y) { return mul(y, rsub(y, 1)); }
Tensor slope_of_tanh(const Tensor& y) { return rsub(square(y), 1); }

Tensor gradient_or_zeros(const Backward& g, int output, const Tensor& like) {
  const Tensor gradient = g.gradient(output);
  return gradient.defined() ? gradient : Tensor::zeros(like.shape(), like.dtype(), like.device());
}

/// Computes the kernel's result from differentiable ops.
void lstm_backward_recorded(Backward& g, const Tensor& gates, const Tensor& c, const Tensor& dh,
                            const Tensor& dc) {
  const std::int64_t width = c.size(1);
  const Tensor in = sigmoid(part(gates, width, 0)), forget = sigmoid(part(gates, width, 1)),
               cell = tanh(part(gates, width, 2)), out = sigmoid(part(gates, width, 3));
  const Tensor shown = tanh(add(mul(forget, c), mul(in, cell)));
  const Tensor d = add(dc, mul(mul(dh, out), slope_of_tanh(shown)));
  g.set(0, cat({mul(mul(d, cell), slope_of_sigmoid(in)), mul(mul(d, c), slope_of_sigmoid(forget)),
                mul(mul(d, in), slope_of_tanh(cell)), mul(mul(dh, shown), slope_of_sigmoid(out))},
               1));
  g.set(1, mul(d, forget));
}

void gru_backward_recorded(Backward& g, const Tensor& gi, const Tensor& gh, const Tensor& h) {
  const std::int64_t width = h.size(1);
  const Tensor reset = sigmoid(add(part(gi, width, 0), part(gh, width, 0))),
               keep = sigmoid(add(part(gi, width, 1), part(gh, width, 1))), y = part(gh, width, 2),
               fresh = tanh(add(part(gi, width, 2), mul(reset, y)));
  const Tensor dfresh = mul(mul(g.grad, rsub(keep, 1)), slope_of_tanh(fresh)),
               dreset = mul(mul(dfresh, y), slope_of_sigmoid(reset)),
               dkeep = mul(mul(g.grad, sub(h, fresh)), slope_of_sigmoid(keep));
  g.set(0, cat({dreset, dkeep, dfresh}, 1));
  g.set(1, cat({dreset, dkeep, mul(dfresh, reset)}, 1));
  g.set(2, mul(g.grad, keep));
}

Tensor empty_rows(const Tensor& t) { return Tensor::empty(t.shape(), t.dtype(), t.device()); }

}  // namespace

LstmState lstm_cell(const Tensor& gates, const Tensor& c) {
  if (const amp::Cast cast("lstm_cell", {&gates, &c}); cast) return lstm_cell(cast[0], cast[1]);
  check_gates("lstm_cell", "gates", gates, c, 4);
  if (is_low_precision(gates.dtype())) {
    const LstmState wide = lstm_cell(to(gates, DType::kFloat32), to(c, DType::kFloat32));
    return {to(wide.h, gates.dtype()), to(wide.c, gates.dtype())};
  }
  const Tensor h_next = empty_rows(c), c_next = empty_rows(c);
  kernels(c).lstm_forward(h_next.view(), c_next.view(), gates.row_major().view(), c.row_major().view());
  const Tensor* inputs[] = {&gates, &c};
  const auto outs = record(
      "lstm_cell", std::vector<Tensor>{h_next, c_next}, inputs,
      [gates = Saved(gates), c = Saved(c)](Backward& g) {
        const Tensor in = g.get(gates), before = g.get(c), dh = gradient_or_zeros(g, 0, before),
                     dc = gradient_or_zeros(g, 1, before);
        if (grad_enabled()) return lstm_backward_recorded(g, in, before, dh, dc);
        const Tensor dgates = empty_rows(in), dbefore = empty_rows(before);
        kernels(in).lstm_backward(dgates.view(), dbefore.view(), in.row_major().view(),
                                  before.row_major().view(), dh.row_major().view(), dc.row_major().view());
        g.set(0, dgates);
        g.set(1, dbefore);
      });
  return {outs[0], outs[1]};
}

LstmState lstm_cell(const Tensor& x, const Tensor& h, const Tensor& c, const Tensor& w_ih, const Tensor& w_hh,
                    const Tensor& b_ih, const Tensor& b_hh) {
  check_cell("lstm_cell", x, h, w_ih, w_hh, {&b_ih, &b_hh}, 4);
  return lstm_cell(both(x, h, w_ih, w_hh, b_ih, b_hh), c);
}

Tensor gru_cell(const Tensor& gi, const Tensor& gh, const Tensor& h) {
  if (const amp::Cast c("gru_cell", {&gi, &gh, &h}); c) return gru_cell(c[0], c[1], c[2]);
  check_gates("gru_cell", "gi", gi, h, 3);
  check_gates("gru_cell", "gh", gh, h, 3);
  if (is_low_precision(h.dtype())) {
    const auto wide = [](const Tensor& t) { return to(t, DType::kFloat32); };
    return to(gru_cell(wide(gi), wide(gh), wide(h)), h.dtype());
  }
  const Tensor h_next = empty_rows(h);
  kernels(h).gru_forward(h_next.view(), gi.row_major().view(), gh.row_major().view(), h.row_major().view());
  return record(
      "gru_cell", h_next, {&gi, &gh, &h}, [gi = Saved(gi), gh = Saved(gh), h = Saved(h)](Backward& g) {
        const Tensor x = g.get(gi), y = g.get(gh), before = g.get(h);
        if (grad_enabled()) return gru_backward_recorded(g, x, y, before);
        const Tensor dx = empty_rows(x), dy = empty_rows(y), dbefore = empty_rows(before);
        kernels(x).gru_backward(dx.view(), dy.view(), dbefore.view(), x.row_major().view(),
                                y.row_major().view(), before.row_major().view(), g.grad.row_major().view());
        g.set(0, dx);
        g.set(1, dy);
        g.set(2, dbefore);
      });
}

Tensor gru_cell(const Tensor& x, const Tensor& h, const Tensor& w_ih, const Tensor& w_hh, const Tensor& b_ih,
                const Tensor& b_hh) {
  check_cell("gru_cell", x, h, w_ih, w_hh, {&b_ih, &b_hh}, 3);
  return gru_cell(linear(x, w_ih, b_ih), linear(h, w_hh, b_hh), h);
}

Tensor rnn_tanh_cell(const Tensor& x, const Tensor& h, const Tensor& w_ih, const Tensor& w_hh,
                     const Tensor& b_ih, const Tensor& b_hh) {
  check_cell("rnn_tanh_cell", x, h, w_ih, w_hh, {&b_ih, &b_hh}, 1);
  return tanh(both(x, h, w_ih, w_hh, b_ih, b_hh));
}

Tensor rnn_relu_cell(const Tensor& x, const Tensor& h, const Tensor& w_ih, const Tensor& w_hh,
                     const Tensor& b_ih, const Tensor& b_hh) {
  check_cell("rnn_relu_cell", x, h, w_ih, w_hh, {&b_ih, &b_hh}, 1);
  return relu(both(x, h, w_ih, w_hh, b_ih, b_hh));
}

}  // namespace trireme
