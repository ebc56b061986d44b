// Layers that draw random numbers in training.
#pragma once

#include <cstdint>
#include <string>

#include "core/nn/module.h"

namespace trireme::nn {

/// Zeroes elements with probability p in training. Its numbers depend on seed, step, its path, how often it
/// was called in this shard, and the sample. Without a path, on the order in which such layers were made.
class Dropout : public Module {
 public:
  explicit Dropout(double probability = 0.5) : p(probability), layer_(mix64(next_random_layer())) {}
  /// A copy is a layer of its own, with other numbers; it counts as made now and has no path yet.
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
  /// The key of the next call, for ops that drop elements themselves; counts as a call.
  RandomKey next_key();
  double p;

 private:
  std::uint64_t layer_;
  CallCounter calls_;
};

}  // namespace trireme::nn
