// The op test table: one row per function that core/ops/ops.h declares or includes.
// tests/unit/core/ops_table.cpp says what each row yields.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/ops/ops.h"

namespace trireme::test {

/// A row-major array of doubles: what references compute with, in plain loops.
struct Array {
  Shape shape;
  std::vector<double> values;

  explicit Array(const Shape& size, double filling = 0)
      : shape(size), values(static_cast<std::size_t>(size.numel()), filling) {}
  double& operator[](std::int64_t i) { return values[static_cast<std::size_t>(i)]; }
  double operator[](std::int64_t i) const { return values[static_cast<std::size_t>(i)]; }
  std::int64_t size() const { return static_cast<std::int64_t>(values.size()); }
  /// Element of an index per dimension; further indices of a broadcast result are dropped from the left.
  double at(const std::vector<std::int64_t>& index) const;
};

/// Index per dimension of element i of a row-major array.
std::vector<std::int64_t> index_of(std::int64_t i, const Shape& shape);

enum class Kind {
  kValue,
  kOptional,     ///< the op also takes an undefined tensor here
  kLabel,        ///< int64, whole numbers 0..high-1
  kConstant,     ///< gets no gradient
  kPlaceholder,  ///< carries shape and dtype for a call that takes no tensor
};

/// One argument: values spread over (low, high), all different.
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

/// One call of an op with its meaning.
struct Case {
  std::string label;
  std::vector<Input> inputs;
  std::function<Tensor(const Tensors&)> call;
  std::function<Array(const Arrays&)> reference;
};

/// A call that must fail with a message that holds every one of `parts`.
struct BadCall {
  std::function<void()> call;
  std::vector<std::string> parts;
};

enum class Takes {
  kFloating,
  kNumbers,   ///< and integers
  kAnything,  ///< and bool
  kPromotes,  ///< all, but the result is floating point
};

struct OpRow {
  std::string declaration;  ///< "add(Tensor, Tensor)": as declarations_in() writes it
  Second second = Second::kYes;
  Takes takes = Takes::kFloating;
  std::vector<Case> cases;  ///< the first one is also run with every dtype
  std::vector<BadCall> bad;
  double float32_tolerance = 1e-5;
  std::string name() const { return declaration.substr(0, declaration.find('(')); }
};

const std::vector<OpRow>& op_table();

/// The functions that a header's text declares, as "name(type, type)" without const, references, names and
/// defaults.
std::vector<std::string> declarations_in(const std::string& header);
/// The text of every header that core/ops/ops.h includes.
std::string op_headers();

/// The same values in another shape.
Array same_order(const Array& x, const Shape& shape);
/// A case of one tensor argument.
Case moving(const Shape& from, std::function<Tensor(const Tensor&)> op,
            std::function<Array(const Array&)> reference);

/// `made` on the device of the first argument: what calls use that make tensors of their own.
Tensor beside(const Tensors& arguments, const Tensor& made);

// One part of the table per family, in op_table_<family>.cpp.
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
