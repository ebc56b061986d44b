// Layers that draw random numbers in training.
#pragma once

#include <cstdint>
#include <string>

#include "core/nn/module.h"

namespace trireme::nn {

/// Zeroes elements with probability p in training. Its random numbers depend on the seed, the step, the
/// layer's path, how often it was called in this shard, and the sample. A layer without a path uses the order
/// in which random layers were constructed instead.
class Dropout : public Module {
 public:
  explicit Dropout(double probability = 0.5) : p(probability), layer_(mix64(next_random_layer())) {}
  /// Makes a new layer, which draws other random numbers. It counts as constructed now and has no path yet.
  Dropout(const Dropout& other) : Module(other), p(other.p), layer_(mix64(next_random_layer())) {}
  Dropout& operator=(const Dropout& other) {
    Module::operator=(other);
    p = other.p;
    return *this;
  }
  Dropout(Dropout&&) = default;
  Dropout& operator=(Dropout&&) = default;
  Tensor forward(const Tensor& x) override;
  void set_path(const std::string& path) override;
  /// Returns the key of the next call, for ops that drop elements themselves. It counts as a call.
  RandomKey next_key();
  double p;

 private:
  std::uint64_t layer_;
  CallCounter calls_;
};

}  // namespace trireme::nn
