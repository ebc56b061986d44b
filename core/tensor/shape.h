// Sizes or strides of a tensor: up to kMaxDims numbers, inline.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "kernels/view.h"

namespace trireme {

class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> sizes) : Shape(std::span(sizes.begin(), sizes.size())) {}
  explicit Shape(std::span<const std::int64_t> sizes);
  /// `dims` times `value`.
  static Shape filled(int dims, std::int64_t value);

  int size() const { return dims_; }
  std::int64_t operator[](int i) const { return values_[i]; }
  std::int64_t& operator[](int i) { return values_[i]; }
  const std::int64_t* begin() const { return values_; }
  const std::int64_t* end() const { return values_ + dims_; }
  bool operator==(const Shape& other) const {
    if (dims_ != other.dims_) return false;
    for (int d = 0; d < dims_; ++d)
      if (values_[d] != other.values_[d]) return false;
    return true;
  }

  void push_back(std::int64_t value);
  void erase(int i);
  void insert(int i, std::int64_t value);
  /// Product of all; 1 for zero dimensions.
  std::int64_t numel() const;
  /// "(2, 3)", "()".
  std::string to_string() const;

 private:
  std::int64_t values_[kMaxDims] = {};
  std::int32_t dims_ = 0;
};

/// More elements than this no tensor has; sums of a hundred such numbers do not overflow.
inline constexpr std::int64_t kMaxNumel = std::int64_t{1} << 56;
/// Throws naming `op` unless no size is negative and their product, with 1 in place of 0, is at most
/// kMaxNumel: neither it nor row-major strides then overflow.
void check_size(const char* op, const Shape& shape);
/// Row-major strides of a dense tensor.
Shape contiguous_strides(const Shape& shape);
/// Strides of a dense (N,C,H,W) tensor whose channels lie next to each other in memory.
Shape channels_last_strides(const Shape& shape);
/// Whether two have a common shape by the rule below.
bool can_broadcast(const Shape& a, const Shape& b);
/// The common shape of two, by the usual broadcasting rule (NumPy). Throws naming `op` and both shapes.
Shape broadcast_shapes(const Shape& a, const Shape& b, const char* op);
/// Maps -dims..dims-1 to 0..dims-1; throws naming `op` otherwise.
int wrap_dim(int dim, int dims, const char* op);

inline std::string format_as(const Shape& shape) { return shape.to_string(); }

}  // namespace trireme
