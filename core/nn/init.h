// Initial values. Names, arguments and defaults are PyTorch's torch.nn.init.
//
// Each call changes `t` in place, without autograd, and returns it. Numbers come from next_initial_key(), so
// equal seeds and equal orders of calls give equal values.
#pragma once

#include <cstdint>

#include "core/tensor/tensor.h"

namespace trireme::nn {

/// Returns a new parameter, uniform in +-1/sqrt(fan_in). PyTorch's linear, convolution and recurrent layers
/// start with the same distribution (there kaiming_uniform_ with a = sqrt(5)).
Tensor default_parameter(const Shape& shape, std::int64_t fan_in);
/// Returns a new parameter whose elements are all `value`.
Tensor constant_parameter(const Shape& shape, double value);

namespace init {

const Tensor& constant_(const Tensor& t, double value);
const Tensor& zeros_(const Tensor& t);
const Tensor& ones_(const Tensor& t);
const Tensor& uniform_(const Tensor& t, double low = 0, double high = 1);
const Tensor& normal_(const Tensor& t, double mean = 0, double std = 1);
/// Fills t with normal numbers, none outside low..high. The bounds are absolute, not in units of std.
const Tensor& trunc_normal_(const Tensor& t, double mean = 0, double std = 1, double low = -2,
                            double high = 2);

enum class Nonlinearity { kLinear, kSigmoid, kTanh, kRelu, kLeakyRelu, kSelu };
/// Returns the factor of initial weights that compensates for how much an activation shrinks its input.
/// `slope` is that of leaky_relu.
double gain_of(Nonlinearity nonlinearity, double slope = 0.01);

/// The numbers of inputs and outputs that a weight (out, in, ...) connects. Throws if the weight has fewer
/// than two dimensions.
struct Fans {
  std::int64_t in, out;
};
Fans fans_of(const Tensor& weight);

/// X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010.
const Tensor& xavier_uniform_(const Tensor& t, double gain = 1);
const Tensor& xavier_normal_(const Tensor& t, double gain = 1);

enum class Fan { kIn, kOut };
struct Kaiming {
  double a = 0;  ///< the slope of the leaky ReLU
  Fan fan = Fan::kIn;
  Nonlinearity nonlinearity = Nonlinearity::kLeakyRelu;
};
/// K. He et al., "Delving deep into rectifiers", 2015.
const Tensor& kaiming_uniform_(const Tensor& t, const Kaiming& how = {});
const Tensor& kaiming_normal_(const Tensor& t, const Kaiming& how = {});

/// Fills t with gain times orthonormal rows, or columns if there are fewer columns. Dimensions after the
/// first count as one. A. Saxe et al., "Exact solutions to the nonlinear dynamics of learning in deep linear
/// neural networks", 2014.
const Tensor& orthogonal_(const Tensor& t, double gain = 1);

}  // namespace init
}  // namespace trireme::nn
