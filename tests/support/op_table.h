// The op test table, with one row for each function that core/ops/ops.h declares or includes. The comment of
// tests/unit/core/ops_table.cpp lists the tests that each row gets.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/ops/ops.h"

namespace trireme::test {

/// A row-major array of doubles. Reference implementations compute with it in plain loops.
struct Array {
  Shape shape;
  std::vector<double> values;

  explicit Array(const Shape& size, double filling = 0)
      : shape(size), values(static_cast<std::size_t>(size.numel()), filling) {}
  double& operator[](std::int64_t i) { return values[static_cast<std::size_t>(i)]; }
  double operator[](std::int64_t i) const { return values[static_cast<std::size_t>(i)]; }
  std::int64_t size() const { return static_cast<std::int64_t>(values.size()); }
  /// Returns the element at an index for each dimension. If `index` has more entries than the array
  /// dimensions, as in a broadcast result, the first entries are ignored.
  double at(const std::vector<std::int64_t>& index) const;
};

/// Returns the index for each dimension of element i of a row-major array.
std::vector<std::int64_t> index_of(std::int64_t i, const Shape& shape);

enum class Kind {
  kValue,
  kOptional,     ///< the op also takes an undefined tensor here
  kLabel,        ///< an int64 tensor of numbers from 0 to high - 1
  kConstant,     ///< the argument does not require a gradient
  kPlaceholder,  ///< gives shape and dtype to a call that takes no tensor
};

/// One tensor argument. Its values are all different and spread over (low, high).
struct Input {
  Shape shape;
  double low = -1, high = 1;
  Kind kind = Kind::kValue;
};

enum class Second {
  kYes,   ///< the gradient can itself be differentiated
  kNone,  ///< the op has no gradient at all
};

using Arrays = std::vector<Array>;
using Tensors = std::vector<Tensor>;

/// One call of an op and its reference implementation.
struct Case {
  std::string label;
  std::vector<Input> inputs;
  std::function<Tensor(const Tensors&)> call;
  std::function<Array(const Arrays&)> reference;
};

/// A call that must throw an error whose message contains each of `parts`.
struct BadCall {
  std::function<void()> call;
  std::vector<std::string> parts;
};

/// The dtypes that an op accepts.
enum class Takes {
  kFloating,  ///< floating point
  kNumbers,   ///< floating point and integers
  kAnything,  ///< floating point, integers and bool
  kPromotes,  ///< floating point, integers and bool; the result is floating point
};

struct OpRow {
  std::string declaration;  ///< text from declarations_in(), such as "add(Tensor, Tensor)"
  Second second = Second::kYes;
  Takes takes = Takes::kFloating;
  std::vector<Case> cases;  ///< the first case is also run with every dtype
  std::vector<BadCall> bad;
  double float32_tolerance = 1e-5;
  std::string name() const { return declaration.substr(0, declaration.find('(')); }
};

const std::vector<OpRow>& op_table();

/// Returns the functions that a header's text declares, as "name(type, type)" without const, references,
/// names and defaults.
std::vector<std::string> declarations_in(const std::string& header);
/// Returns the text of all headers that core/ops/ops.h includes.
std::string op_headers();

/// Returns the values of x, in the same order, with another shape.
Array same_order(const Array& x, const Shape& shape);
/// Returns a case with one tensor argument of shape `from`.
Case moving(const Shape& from, std::function<Tensor(const Tensor&)> op,
            std::function<Array(const Array&)> reference);

/// Returns `made` moved to the device of the first argument. Calls use it for tensors that they make
/// themselves.
Tensor beside(const Tensors& arguments, const Tensor& made);

// The parts of the table, which are in op_table_<family>.cpp.
std::vector<OpRow> elementwise_rows();
std::vector<OpRow> in_place_rows();
std::vector<OpRow> shape_rows();
std::vector<OpRow> reduce_rows();
std::vector<OpRow> index_rows();
std::vector<OpRow> layer_rows();
std::vector<OpRow> loss_rows();
std::vector<OpRow> random_rows();
std::vector<OpRow> attention_rows();
std::vector<OpRow> recurrent_rows();
std::vector<OpRow> image_rows();

}  // namespace trireme::test
