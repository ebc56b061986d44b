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
  /// Returns a shape of `dims` numbers, all equal to `value`.
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
  /// Returns the product of all sizes, which is 1 for zero dimensions.
  std::int64_t numel() const;
  /// Returns the sizes as text, such as "(2, 3)" or "()".
  std::string to_string() const;

 private:
  std::int64_t values_[kMaxDims] = {};
  std::int32_t dims_ = 0;
};

/// The largest number of elements of a tensor. The sum of a hundred such numbers does not overflow an int64.
inline constexpr std::int64_t kMaxNumel = std::int64_t{1} << 56;
/// Throws an error that names `op` if a size is negative, or if the product of the sizes (with 1 in place of
/// 0) exceeds kMaxNumel. Neither numel() nor the row-major strides of a shape that passes overflow.
void check_size(const char* op, const Shape& shape);
/// Returns the row-major strides of a dense tensor.
Shape contiguous_strides(const Shape& shape);
/// Returns the strides of a dense (N,C,H,W) tensor whose channels lie next to each other in memory.
Shape channels_last_strides(const Shape& shape);
/// Returns true if broadcast_shapes() has a result for the two shapes.
bool can_broadcast(const Shape& a, const Shape& b);
/// Returns the common shape of two shapes by NumPy's broadcasting rule. Throws an error that names `op` and
/// both shapes if there is none.
Shape broadcast_shapes(const Shape& a, const Shape& b, const char* op);
/// Maps a dimension in -dims..dims-1 to 0..dims-1. Throws an error that names `op` if it is outside.
int wrap_dim(int dim, int dims, const char* op);

inline std::string format_as(const Shape& shape) { return shape.to_string(); }

}  // namespace trireme
