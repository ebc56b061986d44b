// A dataset of random Boolean expressions such as (1 and (0 xor 1)), which are trees.
#pragma once

#include "core/data/dataset.h"

namespace trireme {

/// The tokens of an expression: values, then operators. kTokens is their number.
enum Token : std::int64_t { kFalse, kTrue, kAnd, kOr, kXor, kTokens };

/// Random expressions with 2 to `leaves` values, in trees of every shape, and their values. A sample is a
/// pure function of (split, leaves, index), so the dataset needs no memory.
///
/// Fields: the tokens (2 * leaves - 1) int64, each operator before its two operands, padded with kFalse after
/// the end; the expression's value () int64.
class Expressions final : public Dataset {
 public:
  Expressions(Split split, std::int64_t leaves, std::int64_t size)
      : split_(split), leaves_(leaves), size_(size) {}
  std::int64_t size() const override { return size_; }
  std::vector<SampleField> fields() const override;
  void read(const SampleId& id, std::span<std::byte* const> to) const override;
  std::string_view unit() const override { return "expressions"; }

 private:
  Split split_;
  std::int64_t leaves_, size_;
};

}  // namespace trireme
