// Tests that unpacking restores packed data, and rejects data that are not a packed message.
#include "kernels/packed_words.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "kernels/dtype.h"

namespace trireme {
namespace {

using Buffer = std::vector<std::byte>;
using Random = std::mt19937_64;

Buffer numbers(std::size_t count, const std::function<float(std::size_t)>& number) {
  Buffer buffer(count * sizeof(float));
  for (std::size_t i = 0; i < count; ++i) {
    const float value = number(i);
    std::memcpy(buffer.data() + i * sizeof value, &value, sizeof value);
  }
  return buffer;
}

/// A copy in memory of exactly its size, so that the address sanitizer detects reads beyond the end.
struct Exact {
  explicit Exact(std::span<const std::byte> from) : size(from.size()), data(new std::byte[size]) {
    if (size > 0) std::memcpy(data.get(), from.data(), size);
  }
  std::span<std::byte> all() const { return {data.get(), size}; }
  std::size_t size;
  std::unique_ptr<std::byte[]> data;
};

Buffer packed(const Buffer& plain) {
  Buffer out(packed_room(plain.size()));
  const Exact from(plain);
  out.resize(pack_words(from.all(), out.data()));
  return out;
}

/// Packs and unpacks `plain` and compares. Returns the packed size as a fraction of the size, or 1 if `plain`
/// cannot be packed.
double share_left(const Buffer& plain) {
  const Buffer shorter = packed(plain);
  if (shorter.empty()) return 1;
  EXPECT_LT(shorter.size(), plain.size());
  const Exact from(shorter), to(Buffer(plain.size(), std::byte{0x5a}));
  EXPECT_TRUE(unpack_words(from.all(), to.all()));
  EXPECT_EQ(std::memcmp(to.data.get(), plain.data(), plain.size()), 0);
  return static_cast<double>(shorter.size()) / static_cast<double>(plain.size());
}

TEST(PackedWords, AreAsShortAsTheirExponentsAllow) {
  Random random(1);
  std::normal_distribution<float> normal;
  std::uniform_real_distribution<float> near_one(1, 2);
  constexpr std::size_t kCount = 100'000;
  EXPECT_NEAR(share_left(numbers(kCount, [&](auto) { return 1e-3f * normal(random); })), 0.868, 0.005);
  EXPECT_NEAR(share_left(numbers(kCount, [&](auto) { return -near_one(random); })), 0.758, 0.002);
  EXPECT_LT(share_left(numbers(kCount, [](auto) { return 0.0f; })), 0.005);
  // A third of the numbers are zeros, as after a ReLU.
  EXPECT_LT(share_left(numbers(kCount, [&](std::size_t i) { return i % 3 == 0 ? 0.0f : normal(random); })),
            0.89);
}

TEST(PackedWords, SixteenBitNumbersGetShorterToo) {
  Random random(2);
  std::normal_distribution<float> normal;
  Buffer plain(200'000);
  for (std::size_t i = 0; i < plain.size(); i += 2) {
    const BFloat16 value(normal(random));
    std::memcpy(plain.data() + i, &value, 2);
  }
  EXPECT_NEAR(share_left(plain), 0.87, 0.01);
}

TEST(PackedWords, KeepEveryBitOfNumbersThatAreNone) {
  using Limits = std::numeric_limits<float>;
  Random random(3);
  const std::vector<float> odd = {0.0f,          -0.0f,         Limits::infinity(),   -Limits::infinity(),
                                  Limits::max(), Limits::min(), Limits::denorm_min(), Limits::quiet_NaN(),
                                  1.0f,          -1.0f};
  // Each block holds one kind of odd numbers, or all kinds among ordinary numbers.
  for (std::size_t kinds = 0; kinds <= odd.size(); ++kinds)
    EXPECT_LT(share_left(numbers(4096 + 5,
                                 [&](std::size_t i) {
                                   // The first numbers make packing worthwhile.
                                   if (i < 2048) return 1.0f + static_cast<float>(i);
                                   return kinds == odd.size() ? odd[random() % odd.size()]
                                          : i % 64 < 8        ? 1.5f
                                                              : odd[kinds];
                                 })),
              1);
  // Also test signalling NaNs with all payloads.
  Buffer plain = numbers(64 * 64, [](std::size_t) { return 1.0f; });
  for (std::size_t i = 2048; i < plain.size(); i += 4) {
    const std::uint32_t word = 0x7f800001u + static_cast<std::uint32_t>(i * 977) % 0x7fffffu;
    std::memcpy(plain.data() + i, &word, 4);
  }
  EXPECT_LT(share_left(plain), 1);
}

TEST(PackedWords, OfAnyLength) {
  Random random(4);
  for (std::size_t bytes = 0; bytes < 3000; bytes += 1 + random() % 7) {
    Buffer plain = numbers(bytes / 4 + 1, [&](auto) { return 1.0f + static_cast<float>(random() % 100); });
    plain.resize(bytes);
    const double left = share_left(plain);
    EXPECT_LT(left, bytes < 1024 ? 1.01 : 0.98) << bytes;
  }
}

TEST(PackedWords, GiveUpWhereNothingIsGained) {
  Random random(5);
  Buffer plain(1 << 20);
  for (std::byte& byte : plain) byte = static_cast<std::byte>(random());
  EXPECT_TRUE(packed(plain).empty());
  // It does not pack either if only the first part can be packed.
  for (std::size_t i = 0; i < 2048; ++i) plain[i] = std::byte{0};
  EXPECT_TRUE(packed(plain).empty());
}

TEST(PackedWords, WhatIsNoneIsFoundOut) {
  Random random(6);
  std::normal_distribution<float> normal;
  const Buffer plain = numbers(3000, [&](std::size_t i) { return i % 500 < 100 ? 0.0f : normal(random); });
  const Buffer whole = packed(plain);
  const auto unpacks = [](const Buffer& from, std::size_t bytes) {
    const Exact in(from), out((Buffer(bytes)));
    return unpack_words(in.all(), out.all());
  };
  ASSERT_TRUE(unpacks(whole, plain.size()));
  EXPECT_FALSE(unpacks(whole, plain.size() - 4));
  EXPECT_FALSE(unpacks(whole, plain.size() + 4));
  for (std::size_t bytes = 0; bytes < whole.size(); bytes += 1 + random() % 11)
    EXPECT_FALSE(
        unpacks(Buffer(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(bytes)), plain.size()));
  Buffer longer = whole;
  longer.push_back({});
  EXPECT_FALSE(unpacks(longer, plain.size()));
  // Damaged messages may be unpacked to other data, but nothing beyond their ends may be accessed.
  for (int round = 0; round < 20'000; ++round) {
    Buffer spoilt = whole;
    for (int i = 0; i < 1 + round % 4; ++i) spoilt[8 + random() % (spoilt.size() - 8)] = std::byte(random());
    unpacks(spoilt, plain.size());
  }
}

}  // namespace
}  // namespace trireme
