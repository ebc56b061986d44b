#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "core/base/crc32c.h"
#include "distributed/checkpoint/manifest.h"
#include "tests/support/checkpoint.h"

namespace trireme {
namespace {

using test::code_thrown_by;
using test::job_at;

/// Returns a manifest with two files and three tensors, of which "b" is in both files.
Manifest sample() {
  Manifest manifest{job_at(7), {}, {}};
  manifest.tensors = {{"a", DType::kFloat32, {2, 2}, {{0, 0, 4, 64}}},
                      {"b", DType::kFloat64, {3}, {{0, 0, 1, 80}, {1, 1, 3, 64}}},
                      {"empty", DType::kFloat32, {0, 5}, {{1, 0, 0, 80}}}};
  manifest.files = {{"f0", 88, std::string(64, 'a'), {1}},
                    {"f1", kBlockBytes + 1, std::string(64, 'b'), {2, 3}}};
  return manifest;
}

std::string error_of(const std::function<void(Manifest&)>& change) {
  Manifest manifest = sample();
  change(manifest);
  std::string what;
  EXPECT_EQ(code_thrown_by([&] { check_complete(manifest, "here"); }, &what), ExitCode::kCheckpoint);
  EXPECT_EQ(what.rfind("here: ", 0), 0u) << what;
  return what;
}

TEST(Manifest, RoundTrips) {
  const Manifest manifest = sample();
  EXPECT_EQ(decode_manifest(encode_manifest(manifest), "here"), manifest);
  check_complete(manifest, "here");
}

TEST(Manifest, EveryDamagedBitAndEveryTruncationIsRefused) {
  const std::string sound = encode_manifest(sample());
  for (std::size_t bit = 0; bit < sound.size() * 8; ++bit) {
    std::string bytes = sound;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_EQ(code_thrown_by([&] { decode_manifest(bytes, "here"); }), ExitCode::kCheckpoint) << bit;
  }
  for (std::size_t size = 0; size < sound.size(); ++size)
    EXPECT_EQ(code_thrown_by([&] { decode_manifest(sound.substr(0, size), "here"); }), ExitCode::kCheckpoint)
        << size;
}

TEST(Manifest, AnotherVersionIsRefusedByName) {
  for (const std::uint32_t version : {kManifestVersion + 1, 0u, 4000000000u}) {
    std::string what;
    EXPECT_EQ(code_thrown_by([&] { decode_manifest(encode_manifest(sample(), version), "here"); }, &what),
              ExitCode::kCheckpoint);
    EXPECT_NE(what.find(fmt::format("format version {}, this program reads 1", version)), std::string::npos)
        << what;
  }
}

TEST(Manifest, WhatIsNotCoveredOnceIsRefused) {
  const auto expect = [](const std::function<void(Manifest&)>& change, const std::string& part) {
    const std::string error = error_of(change);
    EXPECT_NE(error.find(part), std::string::npos) << error << "\n" << part;
  };
  expect([](Manifest& m) { m.tensors[0].pieces.clear(); }, "tensor 'a' has 4 elements, only 0");
  expect([](Manifest& m) { m.tensors[2].pieces.clear(); }, "'empty'");
  expect([](Manifest& m) { m.tensors[1].pieces.pop_back(); }, "tensor 'b' has 3 elements, only 1");
  expect([](Manifest& m) { m.tensors[1].pieces[1].begin = 2; },
         "covered up to 1, then comes the piece [2, 3)");
  expect([](Manifest& m) { m.tensors[1].pieces[1].begin = 0; }, "covered up to 1");
  expect([](Manifest& m) { m.tensors[1].pieces[1].end = 4; }, "the piece [1, 4)");
  expect([](Manifest& m) { m.tensors[1].pieces[1].end = 0; }, "the piece [1, 0)");
  expect([](Manifest& m) { m.tensors[0].pieces[0].end = UINT64_MAX; }, "the piece [0, 18446744073709551615)");
  expect([](Manifest& m) { m.tensors[0].pieces[0].file = 2; }, "file number 2 of 2");
  expect([](Manifest& m) { m.tensors[0].pieces[0].offset = 66; },
         "tensors 'a' and 'b' share bytes of 'f0' at 80");
  expect([](Manifest& m) { m.tensors[1].pieces[0].offset = 81; },
         "needs 8 bytes at 81 of 'f0', which has 88");
  expect([](Manifest& m) { m.tensors[1].pieces[0].offset = UINT64_MAX - 3; }, "needs 8 bytes");
  expect([](Manifest& m) { m.tensors[0].shape = {-4}; }, "impossible shape [-4]");
  expect([](Manifest& m) { m.tensors[0].shape = {1L << 62, 2}; }, "impossible shape");
  expect([](Manifest& m) { m.tensors[0].shape = {5}; }, "has 5 elements, only 4");
  expect([](Manifest& m) { m.tensors[1].name = "a"; }, "tensor 'a' comes after 'a'");
  expect([](Manifest& m) { std::swap(m.tensors[0], m.tensors[1]); }, "tensor 'a' comes after 'b'");
  expect([](Manifest& m) { m.files[1].crcs.pop_back(); }, "has 1 block checksums, not 2");
  expect([](Manifest& m) { m.files[0].size = UINT64_MAX; }, "block checksums");
  expect([](Manifest& m) { m.files[1].name = "f0"; }, "'f0' cannot name a file");
  for (const char* name : {"", ".", "..", "../f", "/etc/passwd", "manifest.pb"})
    expect([&](Manifest& m) { m.files[1].name = name; }, "cannot name a file");
}

/// Gives damaged manifests a valid checksum, so that the parser and the validation see the damage.
TEST(Manifest, ManyDamagedAndSealedAgain) {
  const std::string sound = encode_manifest(sample());
  std::mt19937_64 random(1);
  int refused = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = sound.substr(0, sound.size() - 5);
    for (std::uint64_t changes = 1 + random() % 3; changes > 0; --changes)
      bytes[random() % bytes.size()] = static_cast<char>(random());
    if (random() % 4 == 0) bytes.resize(random() % bytes.size());
    const std::uint32_t crc = crc32c(bytes.data(), bytes.size());
    bytes += '\x7D';
    for (unsigned shift = 0; shift < 32; shift += 8) bytes += static_cast<char>(crc >> shift);
    const ExitCode code = code_thrown_by([&] { check_complete(decode_manifest(bytes, "here"), "here"); });
    EXPECT_TRUE(code == ExitCode::kDone || code == ExitCode::kCheckpoint);
    refused += code == ExitCode::kCheckpoint;
  }
  EXPECT_GT(refused, 5000);
}

std::vector<TensorSlot> tensors_of(const std::vector<std::pair<DType, std::int64_t>>& list) {
  std::vector<TensorSlot> tensors;
  for (const auto& [dtype, count] : list)
    tensors.push_back({fmt::format("t{:03}", tensors.size()),
                       dtype,
                       {count},
                       nullptr,
                       static_cast<std::size_t>(bytes_of(dtype, {count}))});
  return tensors;
}

TEST(CutTensors, KnownCuts) {
  const auto tensors = tensors_of({{DType::kFloat32, 4}, {DType::kFloat64, 3}});  // 40 bytes
  EXPECT_EQ(cut_tensors(tensors, 1), (std::vector<Cut>{{0, 0, 0, 4}, {1, 0, 0, 3}}));
  EXPECT_EQ(cut_tensors(tensors, 2),
            (std::vector<Cut>{{0, 0, 0, 4}, {1, 1, 0, 3}}));  // byte 20 is inside an element
  EXPECT_EQ(cut_tensors(tensors, 4),
            (std::vector<Cut>{{0, 0, 0, 2}, {0, 1, 2, 4}, {1, 2, 0, 1}, {1, 3, 1, 3}}));
  EXPECT_EQ(cut_tensors(tensors_of({{DType::kFloat32, 0}}), 3), (std::vector<Cut>{{0, 2, 0, 0}}));
  EXPECT_TRUE(cut_tensors({}, 3).empty());
}

TEST(CutTensors, CoverEverythingOnceAndEvenly) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 500; ++round) {
    std::vector<std::pair<DType, std::int64_t>> list;
    std::uint64_t total = 0;
    for (std::uint64_t i = random() % 12; i > 0; --i) {
      const auto dtype = static_cast<DType>(random() % 5);
      list.emplace_back(dtype, random() % 4 ? static_cast<std::int64_t>(random() % 50) : 0);
      total += static_cast<std::uint64_t>(list.back().second) * size_of(dtype);
    }
    const auto tensors = tensors_of(list);
    const auto world = static_cast<int>(1 + random() % 9);
    std::vector<std::uint64_t> bytes(static_cast<std::size_t>(world)), next(tensors.size()),
        cuts_of(tensors.size());
    std::uint32_t last_file = 0;
    for (const Cut& cut : cut_tensors(tensors, world)) {
      ASSERT_LT(cut.file, static_cast<std::uint32_t>(world));
      ASSERT_GE(cut.file, last_file);
      last_file = cut.file;
      ASSERT_EQ(cut.begin, next[cut.tensor]);
      next[cut.tensor] = cut.end;
      ++cuts_of[cut.tensor];
      ASSERT_TRUE(cut.end > cut.begin || tensors[cut.tensor].bytes == 0);
      bytes[cut.file] += (cut.end - cut.begin) * size_of(tensors[cut.tensor].dtype);
    }
    for (std::size_t t = 0; t < tensors.size(); ++t) {
      ASSERT_EQ(next[t], static_cast<std::uint64_t>(list[t].second));
      ASSERT_GE(cuts_of[t], 1u);
    }
    for (const std::uint64_t b : bytes) {
      ASSERT_LE(b, total / static_cast<std::uint64_t>(world) + 9);
      ASSERT_GE(b + 9, total / static_cast<std::uint64_t>(world));
    }
  }
}

TEST(CutTensors, NamesOfPieces) {
  EXPECT_EQ(name_of_cut("w", 0, 6, 6), "w");
  EXPECT_EQ(name_of_cut("w", 0, 5, 6), "w#0-5");
  EXPECT_EQ(name_of_cut("w", 0, 0, 0), "w");
}

}  // namespace
}  // namespace trireme
