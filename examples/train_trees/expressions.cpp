#include "examples/train_trees/expressions.h"

#include <algorithm>

#include "kernels/rng.h"

namespace trireme {

namespace {

class Dice {
 public:
  explicit Dice(RandomKey key) : key_(key) {}
  std::int64_t below(std::int64_t bound) {
    return to_bounded(philox(key_, 0, rolled_++)[0], static_cast<std::uint32_t>(bound));
  }

 private:
  RandomKey key_;
  std::uint64_t rolled_ = 0;
};

/// Writes a random tree with this many leaves at `at` and moves `at` to its end. Returns the tree's value.
bool grow(std::int64_t leaves, Dice& dice, std::int64_t*& at) {
  if (leaves == 1) {
    *at = dice.below(2);
    return *at++ == kTrue;
  }
  const std::int64_t op = *at++ = kAnd + dice.below(3);
  const std::int64_t on_the_left = 1 + dice.below(leaves - 1);
  const bool left = grow(on_the_left, dice, at);
  const bool right = grow(leaves - on_the_left, dice, at);
  return op == kAnd ? left && right : op == kOr ? left || right : left != right;
}

}  // namespace

std::vector<SampleField> Expressions::fields() const {
  return {{.shape = {2 * leaves_ - 1}, .dtype = DType::kInt64}, {.shape = {}, .dtype = DType::kInt64}};
}

void Expressions::read(const SampleId& id, std::span<std::byte* const> to) const {
  Dice dice(random_key(0x74726565, static_cast<std::uint64_t>(split_), static_cast<std::uint64_t>(id.index)));
  auto* at = reinterpret_cast<std::int64_t*>(to[0]);
  std::int64_t* const end = at + 2 * leaves_ - 1;
  const bool value = grow(2 + dice.below(leaves_ - 1), dice, at);
  std::fill(at, end, kFalse);
  *reinterpret_cast<std::int64_t*>(to[1]) = value;
}

}  // namespace trireme
