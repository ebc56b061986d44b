#include "kernels/rng.h"

#include <gtest/gtest.h>

#include <set>

namespace trireme {
namespace {

using Four = std::array<std::uint32_t, 4>;

// Calls philox with the counter words c0 to c3 and the key words k0 and k1. The expected numbers below are
// the known answers of Random123 (kat_vectors, philox4x32 with 10 rounds).
Four with_words(std::uint32_t c0, std::uint32_t c1, std::uint32_t c2, std::uint32_t c3, std::uint32_t k0,
                std::uint32_t k1) {
  const auto join = [](std::uint32_t low, std::uint32_t high) {
    return static_cast<std::uint64_t>(high) << 32 | low;
  };
  return philox({join(k0, k1)}, join(c2, c3), join(c0, c1));
}

TEST(Philox, KnownAnswers) {
  EXPECT_EQ(with_words(0, 0, 0, 0, 0, 0), (Four{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const std::uint32_t f = 0xffffffff;
  EXPECT_EQ(with_words(f, f, f, f, f, f), (Four{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(with_words(0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0),
            (Four{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, UnitNumbersStayBelowOne) {
  EXPECT_EQ(to_unit_float(0), 0);
  EXPECT_LT(to_unit_float(0xffffffff), 1);
  EXPECT_LT(to_unit_double(0xffffffff, 0xffffffff), 1);
  EXPECT_EQ(to_unit_double(0x80000000, 0), 0.5);
  EXPECT_EQ(to_bounded(0xffffffff, 10), 9u);
  EXPECT_EQ(to_bounded(0, 10), 0u);
  EXPECT_EQ(to_bounded(0x80000000, 10), 5u);
}

TEST(RandomKey, DependsOnEveryPartAndOrder) {
  std::set<std::uint64_t> keys;
  for (std::uint64_t seed = 0; seed < 10; ++seed)
    for (std::uint64_t a = 0; a < 10; ++a)
      for (std::uint64_t b = 0; b < 10; ++b) keys.insert(random_key(seed, a, b).value);
  EXPECT_EQ(keys.size(), 1000u);
}

}  // namespace
}  // namespace trireme
