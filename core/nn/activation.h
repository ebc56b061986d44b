// Activations and other layers without parameters, as modules.
#pragma once

#include "core/nn/module.h"
#include "core/ops/ops.h"

namespace trireme::nn {

/// An op of one tensor, as a module.
template <Tensor (*op)(const Tensor&)>
class Activation : public Module {
 public:
  Tensor forward(const Tensor& x) override { return op(x); }
};

using ReLU = Activation<trireme::relu>;
using ReLU6 = Activation<trireme::relu6>;
using Sigmoid = Activation<trireme::sigmoid>;
using LogSigmoid = Activation<trireme::log_sigmoid>;
using Tanh = Activation<trireme::tanh>;
using SiLU = Activation<trireme::silu>;
using Softplus = Activation<trireme::softplus>;

class GELU : public Module {
 public:
  explicit GELU(Gelu how = Gelu::kNone) : approximate(how) {}
  Tensor forward(const Tensor& x) override { return gelu(x, approximate); }
  Gelu approximate;
};

class LeakyReLU : public Module {
 public:
  explicit LeakyReLU(double slope = 0.01) : negative_slope(slope) {}
  Tensor forward(const Tensor& x) override { return leaky_relu(x, negative_slope); }
  double negative_slope;
};

class ELU : public Module {
 public:
  explicit ELU(double a = 1) : alpha(a) {}
  Tensor forward(const Tensor& x) override { return elu(x, alpha); }
  double alpha;
};

class Hardtanh : public Module {
 public:
  explicit Hardtanh(double least = -1, double most = 1) : low(least), high(most) {}
  Tensor forward(const Tensor& x) override { return hardtanh(x, low, high); }
  double low, high;
};

class Softmax : public Module {
 public:
  explicit Softmax(int over = -1) : dim(over) {}
  Tensor forward(const Tensor& x) override { return softmax(x, dim); }
  int dim;
};

class LogSoftmax : public Module {
 public:
  explicit LogSoftmax(int over = -1) : dim(over) {}
  Tensor forward(const Tensor& x) override { return log_softmax(x, dim); }
  int dim;
};

class Identity : public Module {
 public:
  Tensor forward(const Tensor& x) override { return x; }
};

/// Flattens all dimensions but the first: (N, ...) -> (N, product of the others).
class Flatten : public Module {
 public:
  Tensor forward(const Tensor& x) override { return flatten(x, 1); }
};

}  // namespace trireme::nn
