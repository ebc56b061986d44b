// Mixed precision: ops that profit from 16 bits take them, ops that need more digits take float32, and
// parameters stay float32.
//
//   {
//     amp::Autocast guard;
//     loss = cross_entropy(model(x), y);   // matrix products in bfloat16, softmax and loss in float32
//   }
//   loss.backward();                       // float32 gradients of float32 parameters
//
// The table in autocast.cpp says which op does what; an op takes part by one line at its start:
//
//   if (const amp::Cast c("linear", {&x, &w, &b}); c) return linear(c[0], c[1], c[2]);
#pragma once

#include <initializer_list>
#include <vector>

#include "core/autograd/autograd.h"

namespace trireme::amp {

/// Makes ops on this thread choose their compute types during its lifetime. Backward is not affected and may
/// run inside or outside. A parameter is converted once per outermost guard, and again after a change in
/// place, so make a guard for each step. Guards may nest; Autocast(false) turns autocast off.
class Autocast {
 public:
  explicit Autocast(bool on = true, DType low = DType::kBFloat16);
  ~Autocast();
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;

 private:
  AutocastScope scope_;
};

/// The arguments of an op, converted as the op takes them under Autocast. It converts to false without
/// Autocast. During its lifetime ops compute in the types of their arguments, so that the op can call itself.
class Cast {
 public:
  Cast(const char* op, std::initializer_list<const Tensor*> arguments) {
    if (autocast_mode.on) [[unlikely]]
      convert(op, arguments);
  }
  ~Cast() {
    if (!converted_.empty()) autocast_mode.on = true;
  }
  Cast(const Cast&) = delete;
  Cast& operator=(const Cast&) = delete;
  explicit operator bool() const { return !converted_.empty(); }
  const Tensor& operator[](std::size_t i) const { return converted_[i]; }

 private:
  void convert(const char* op, std::initializer_list<const Tensor*> arguments);
  std::vector<Tensor> converted_;
};

}  // namespace trireme::amp
