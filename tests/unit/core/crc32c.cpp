#include "core/base/crc32c.h"

#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

namespace trireme {
namespace {

// The expected values are from RFC 3720, appendix B.4.
TEST(Crc32c, KnownValues) {
  const std::vector<unsigned char> zeros(32, 0), ones(32, 0xFF);
  std::vector<unsigned char> up(32), down(32);
  std::iota(up.begin(), up.end(), 0);
  std::iota(down.rbegin(), down.rend(), 0);
  const std::vector<unsigned char> read_command = {
      0x01, 0xc0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
      0x14, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00, 0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x18,
      0x28, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00};
  for (auto* function : {crc32c, crc32c_by_table}) {
    EXPECT_EQ(function("", 0, 0), 0u);
    EXPECT_EQ(function("123456789", 9, 0), 0xE3069283u);
    EXPECT_EQ(function(zeros.data(), zeros.size(), 0), 0x8A9136AAu);
    EXPECT_EQ(function(ones.data(), ones.size(), 0), 0x62A8AB43u);
    EXPECT_EQ(function(up.data(), up.size(), 0), 0x46DD794Eu);
    EXPECT_EQ(function(down.data(), down.size(), 0), 0x113FDB5Cu);
    EXPECT_EQ(function(read_command.data(), read_command.size(), 0), 0xD9963A56u);
  }
}

TEST(Crc32c, BothWaysAgreeAtEveryLengthStartAndCut) {
  std::vector<unsigned char> bytes(300);
  std::uint32_t state = 1;
  for (auto& byte : bytes) byte = static_cast<unsigned char>((state = state * 1664525u + 1013904223u) >> 24);
  for (std::size_t start = 0; start < 9; ++start)
    for (std::size_t size = 0; size + start <= bytes.size(); ++size) {
      const auto* data = bytes.data() + start;
      const std::uint32_t whole = crc32c(data, size);
      ASSERT_EQ(whole, crc32c_by_table(data, size)) << start << " " << size;
      const std::size_t cut = size * 3 / 7;
      ASSERT_EQ(whole, crc32c(data + cut, size - cut, crc32c(data, cut)));
      ASSERT_EQ(whole, crc32c_by_table(data + cut, size - cut, crc32c_by_table(data, cut)));
    }
}

TEST(Crc32c, EveryFlippedBitIsSeen) {
  std::string bytes(65, 'x');
  const std::uint32_t sound = crc32c(bytes.data(), bytes.size());
  for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string damaged = bytes;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_NE(crc32c(damaged.data(), damaged.size()), sound) << bit;
  }
}

}  // namespace
}  // namespace trireme
