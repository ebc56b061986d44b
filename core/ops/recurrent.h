// Cells of recurrent networks. See ops.h for the rules of all ops.
#pragma once

#include "core/tensor/tensor.h"

namespace trireme {

// --- recurrent.cpp: x (N,in), states (N,H), w_ih (gates*H, in), w_hh (gates*H, H), b_ih and b_hh (gates*H)
// or undefined. The first forms are what follows the products with the weights, in one pass over memory.
struct LstmState {
  Tensor h;
  Tensor c;
};
/// gates (N,4H) are input, forget, cell and output. S. Hochreiter, J. Schmidhuber, "Long short-term memory",
/// 1997; F. Gers et al., "Learning to forget", 2000.
LstmState lstm_cell(const Tensor& gates, const Tensor& c);
LstmState lstm_cell(const Tensor& x, const Tensor& h, const Tensor& c, const Tensor& w_ih, const Tensor& w_hh,
                    const Tensor& b_ih = {}, const Tensor& b_hh = {});
/// gi, gh (N,3H), of input and state, are reset, update and new. K. Cho et al., "Learning phrase
/// representations using RNN encoder-decoder", 2014.
Tensor gru_cell(const Tensor& gi, const Tensor& gh, const Tensor& h);
Tensor gru_cell(const Tensor& x, const Tensor& h, const Tensor& w_ih, const Tensor& w_hh,
                const Tensor& b_ih = {}, const Tensor& b_hh = {});
/// tanh or relu of w_ih x + b_ih + w_hh h + b_hh. J. Elman, "Finding structure in time", 1990.
Tensor rnn_tanh_cell(const Tensor& x, const Tensor& h, const Tensor& w_ih, const Tensor& w_hh,
                     const Tensor& b_ih = {}, const Tensor& b_hh = {});
Tensor rnn_relu_cell(const Tensor& x, const Tensor& h, const Tensor& w_ih, const Tensor& w_hh,
                     const Tensor& b_ih = {}, const Tensor& b_hh = {});

}  // namespace trireme
