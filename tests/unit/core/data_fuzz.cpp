// Replays a fixed sequence of damaged IDX files, so that every run of the tests fuzzes the reader a little.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tests/fuzz/idx.h"
#include "tests/unit/core/data_files.h"

namespace trireme {
namespace {

using test::Bytes;

/// Changes the bytes once: flips a bit, sets a byte to an interesting value, or cuts, repeats or inserts a
/// range.
void mutate(Bytes& bytes, std::mt19937& random) {
  if (bytes.empty()) {
    bytes.push_back(static_cast<std::uint8_t>(random()));
    return;
  }
  const std::size_t at = random() % bytes.size();
  const auto place = bytes.begin() + static_cast<std::ptrdiff_t>(at);
  const std::size_t length = std::min<std::size_t>(1 + random() % 16, bytes.size() - at);
  const std::uint8_t interesting[] = {0x00, 0x01, 0x03, 0x08, 0x1f, 0x7f, 0x80, 0x8b, 0xff};
  switch (random() % 6) {
    case 0:
      *place ^= static_cast<std::uint8_t>(1u << random() % 8);
      break;
    case 1:
      *place = interesting[random() % std::size(interesting)];
      break;
    case 2:
      bytes.resize(at);
      break;
    case 3:
      bytes.erase(place, place + static_cast<std::ptrdiff_t>(length));
      break;
    case 4: {
      const Bytes piece(place, place + static_cast<std::ptrdiff_t>(length));
      bytes.insert(place, piece.begin(), piece.end());
      break;
    }
    case 5:
      bytes.insert(place, length, static_cast<std::uint8_t>(random()));
      break;
  }
}

TEST(FuzzIdx, ReplaysDamagedFiles) {
  std::vector<std::pair<Bytes, int>> seeds{
      {test::idx_bytes({6, 5, 4}, test::pattern_bytes(120)), 3},
      {test::idx_bytes({20}, test::pattern_bytes(20)), 1},
      {test::idx_bytes({40, 28, 28}, Bytes(40 * 28 * 28)), 3},
  };
  for (std::size_t i = 0; i < 3; ++i) {
    const Bytes packed = test::gzip_bytes(seeds[i].first);
    seeds.emplace_back(packed, seeds[i].second);
    seeds.emplace_back(test::concatenate(packed, test::gzip_bytes({})), seeds[i].second);
  }
  std::mt19937 random(20240601);
  int accepted = 0, refused = 0;
  for (int round = 0; round < 1000; ++round) {
    for (const auto& [seed, rank] : seeds) {
      Bytes bytes = seed;
      const auto changes = random() % 4;
      for (unsigned i = 0; i < changes; ++i) mutate(bytes, random);
      // Half of the compressed inputs are packed after the damage, so that it gets past the checksum.
      if (round % 2) bytes = test::gzip_bytes(bytes);
      (fuzz::try_idx(bytes, rank) ? accepted : refused) += 1;
    }
  }
  EXPECT_GT(accepted, 500);
  EXPECT_GT(refused, 500);
}

// Tests every change of a single byte, and every truncation, of a small file.
TEST(FuzzIdx, EveryByteAndEveryCut) {
  const Bytes plain = test::idx_bytes({2, 3, 4}, test::pattern_bytes(24));
  for (const Bytes& good : {plain, test::gzip_bytes(plain)}) {
    ASSERT_TRUE(fuzz::try_idx(good, 3));
    for (std::size_t at = 0; at < good.size(); ++at) {
      Bytes bytes = good;
      for (int value = 0; value < 256; ++value) {
        bytes[at] = static_cast<std::uint8_t>(value);
        const bool accepted = fuzz::try_idx(bytes, 3);
        if (good == plain || bytes == good) {
          const bool is_header = at < 16;
          EXPECT_EQ(accepted, bytes == good || !is_header) << at << " " << value;
        }
      }
      bytes.resize(at);
      EXPECT_FALSE(fuzz::try_idx(bytes, 3)) << at;
    }
  }
}

}  // namespace
}  // namespace trireme
