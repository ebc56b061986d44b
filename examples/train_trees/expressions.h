// Boolean expressions as trees: (1 and (0 xor 1)).
#pragma once

#include "core/data/dataset.h"

namespace trireme {

/// What stands in an expression. Values come first.
enum Token : std::int64_t { kFalse, kTrue, kAnd, kOr, kXor, kTokens };

/// Random expressions with 2 to `leaves` values, in trees of every shape, and what they evaluate to. A pure
/// function of (split, leaves, index), which costs no memory.
///
/// Fields: the tokens (2 * leaves - 1) int64, each operator before its two operands, filled up with kFalse
/// behind the end; the value () int64.
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
