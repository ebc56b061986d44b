#include "core/data/idx.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "tests/unit/core/data_files.h"

namespace trireme {
namespace {

using test::Bytes;
using test::concatenate;
using test::expect_error;
using test::gzip_bytes;
using test::idx_bytes;
using test::pattern_bytes;

constexpr const char* kFashion = "/usr/share/datasets/fashion-mnist";

/// Writes a small dataset of training and test images of 3x2 pixels.
void write_small(const test::TemporaryDirectory& directory, bool gzip) {
  const auto put = [&](const std::string& name, const Bytes& bytes) {
    directory.write(gzip ? name + ".gz" : name, gzip ? gzip_bytes(bytes) : bytes);
  };
  put("train-images-idx3-ubyte", idx_bytes({4, 3, 2}, pattern_bytes(24)));
  put("train-labels-idx1-ubyte", idx_bytes({4}, {0, 9, 3, 3}));
  put("t10k-images-idx3-ubyte", idx_bytes({2, 3, 2}, Bytes(12, 255)));
  put("t10k-labels-idx1-ubyte", idx_bytes({2}, {1, 2}));
}

IdxArray decode(const Bytes& bytes, int rank) { return decode_idx(bytes, "some/file", rank); }

TEST(DecodeIdx, ReadsPlainAndGzip) {
  // The buffer grows more than once, and the size is not a multiple of the growth.
  const Bytes values = pattern_bytes(2717 * 29 * 37);
  const Bytes plain = idx_bytes({2717, 29, 37}, values);
  const std::size_t half = plain.size() / 2;
  const Bytes members = concatenate(gzip_bytes(Bytes(plain.begin(), plain.begin() + half)),
                                    gzip_bytes(Bytes(plain.begin() + half, plain.end())));
  for (const Bytes& bytes : {plain, gzip_bytes(plain), members}) {
    const IdxArray array = decode(bytes, 3);
    EXPECT_EQ(array.dims, (std::vector<std::uint32_t>{2717, 29, 37}));
    EXPECT_EQ(array.values, values);
    EXPECT_EQ(array.values.capacity(), values.size());
  }
  EXPECT_EQ(decode(idx_bytes({3}, {7, 8, 9}), 1).values, (Bytes{7, 8, 9}));
}

TEST(DecodeIdx, NamesWhatIsWrongWithTheBytes) {
  const Bytes good = idx_bytes({5, 4, 3}, pattern_bytes(60));
  const auto bad = [](const std::vector<std::string>& parts, const Bytes& bytes, int rank = 3) {
    std::vector<std::string> all{"some/file: "};
    all.insert(all.end(), parts.begin(), parts.end());
    expect_error(ExitCode::kData, all, [&] { decode(bytes, rank); });
  };
  bad({"holds 0 bytes", "16"}, {});
  bad({"holds 15 bytes", "16"}, Bytes(good.begin(), good.begin() + 15));
  bad({"0x00000803", "0x00000801"}, good, 1);
  bad({"0x00000801", "0x00000803"}, idx_bytes({20}, pattern_bytes(20)));
  bad({"0x00000d03"}, [&] {
    Bytes b = good;
    b[2] = 0x0d;
    return b;
  }());
  bad({"dimension 1 of 3 is 0"}, idx_bytes({5, 0, 3}, {}));
  bad({"says 5 images of 4x3 (60 bytes)", "holds 4 (59 bytes)"}, Bytes(good.begin(), good.end() - 1));
  bad({"says 5 images of 4x3 (60 bytes)", "holds 5 (61 bytes)"}, concatenate(good, {0}));
  bad({"says 3 labels (3 bytes)", "holds 2 (2 bytes)"}, idx_bytes({3}, {1, 2}), 1);
  bad({"says 5 images of 4x3 (60 bytes)", "holds 6 (72 bytes)"}, gzip_bytes(concatenate(good, Bytes(12))));
  bad({"says 5 images of 4x3 (60 bytes)", "holds 3 (36 bytes)"},
      gzip_bytes(Bytes(good.begin(), good.begin() + 16 + 36)));
}

TEST(DecodeIdx, NamesWhatIsWrongWithTheGzip) {
  const Bytes good = gzip_bytes(idx_bytes({50, 40, 3}, pattern_bytes(6000)));
  const auto bad = [](const std::vector<std::string>& parts, const Bytes& bytes) {
    expect_error(ExitCode::kData, parts, [&] { decode(bytes, 3); });
  };
  for (std::size_t size = 2; size < good.size(); ++size)
    bad({"some/file: ", "cut short", fmt::format("{} bytes", size)},
        Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size)));
  bad({"some/file: ", "3 bytes of something else", fmt::format("ends at byte {}", good.size()),
       fmt::format("has {} bytes", good.size() + 3)},
      concatenate(good, {1, 2, 3}));

  const std::size_t trailer = good.size() - 8;
  const std::string real = fmt::format("{:02x}{:02x}{:02x}{:02x}", good[trailer + 3], good[trailer + 2],
                                       good[trailer + 1], good[trailer]);
  Bytes checksum = good;
  checksum[trailer] = 0x12, checksum[trailer + 1] = 0x34, checksum[trailer + 2] = 0x56,
  checksum[trailer + 3] = 0x78;
  bad({"checksum is wrong", "stored 78563412", "computed " + real}, checksum);
  Bytes length = good;
  length[trailer + 4] ^= 1;
  bad({"damaged at byte", "length"}, length);
  Bytes block = good;
  block[10] = 0x07;  // the last block has the reserved type
  bad({"damaged at byte", "block type"}, block);
}

// A header may claim 2^96 bytes. The allocated memory must depend on the file's content instead.
TEST(DecodeIdx, AllocatesByContentNotByHeader) {
  const Bytes absurd = idx_bytes({0xffffffff, 0xffffffff, 0xffffffff}, pattern_bytes(100));
  const Bytes large = idx_bytes({1u << 31, 1u << 8, 1u << 8}, Bytes(100));
  for (const Bytes& bytes : {absurd, gzip_bytes(absurd), large, gzip_bytes(large)}) {
    rusage before{}, after{};
    getrusage(RUSAGE_SELF, &before);
    expect_error(ExitCode::kData, {"the file holds 0 (100 bytes)"}, [&] { decode(bytes, 3); });
    getrusage(RUSAGE_SELF, &after);
    EXPECT_LT(after.ru_maxrss - before.ru_maxrss, 64 * 1024) << "KiB";
  }
  // The message contains 2^96 - 3*2^64 + 3*2^32 - 1, not its low 64 bits.
  expect_error(ExitCode::kData, {"79228162458924105385300197375"}, [&] { decode(absurd, 3); });
}

TEST(IdxDataset, ReadsAndNormalizesBothSplits) {
  for (const bool gzip : {false, true}) {
    test::TemporaryDirectory directory;
    write_small(directory, gzip);
    const auto train = IdxDataset::open(directory.path(), Split::kTrain);
    const auto test = IdxDataset::open(directory.path(), Split::kTest);
    EXPECT_EQ(train->size(), 4);
    EXPECT_EQ(test->size(), 2);
    EXPECT_EQ(train->sample_shape(), (SampleShape{1, 3, 2}));
    EXPECT_EQ(train->classes(), 10);

    const Bytes pixels = pattern_bytes(24);
    double mean = 0, variance = 0;
    for (const std::uint8_t p : pixels) mean += p / 255.0 / 24;
    for (const std::uint8_t p : pixels) variance += (p / 255.0 - mean) * (p / 255.0 - mean) / 24;
    EXPECT_NEAR(train->normalization().mean[0], mean, 1e-12);
    EXPECT_NEAR(train->normalization().stddev[0], std::sqrt(variance), 1e-12);
    EXPECT_EQ(test->normalization().mean, train->normalization().mean);

    const std::vector<std::int64_t> labels{0, 9, 3, 3};
    float x[6];
    std::int64_t y = -1;
    for (std::size_t i = 0; i < 4; ++i) {
      train->get(static_cast<std::int64_t>(i), x, &y);
      EXPECT_EQ(y, labels[i]);
      for (std::size_t j = 0; j < 6; ++j)
        EXPECT_NEAR(x[j], (pixels[i * 6 + j] / 255.0 - mean) / std::sqrt(variance), 1e-6);
    }
    test->get(1, x, &y);
    EXPECT_EQ(y, 2);
    EXPECT_NEAR(x[5], (1.0 - mean) / std::sqrt(variance), 1e-6);

    const auto given = IdxDataset::open(directory.path(), Split::kTest, Normalization{{0.5}, {0.25}});
    given->get(0, x, &y);
    EXPECT_EQ(x[0], 2.0f);
    expect_error(ExitCode::kInternal, {"index 4", "0..3"}, [&] { train->get(4, x, &y); });
    expect_error(ExitCode::kInternal, {"index -1"}, [&] { train->get(-1, x, &y); });
  }
}

TEST(IdxDataset, ConstantImagesStayFinite) {
  const Normalization normalization = measure(Bytes(12, 51), 1);
  EXPECT_DOUBLE_EQ(normalization.mean[0], 0.2);
  EXPECT_EQ(normalization.stddev[0], 1.0);
}

TEST(IdxDataset, MeasuresMorePixelsThan64BitsSquare) {
  Bytes pixels(40 << 20);
  std::fill(pixels.begin(), pixels.begin() + (20 << 20), std::uint8_t{255});
  const Normalization normalization = measure(pixels, 2);
  EXPECT_EQ(normalization.mean, (std::vector<double>{0.5, 0.5}));
  const Normalization grey = measure(pixels, 1);
  EXPECT_EQ(grey.mean[0], 0.5);
  EXPECT_EQ(grey.stddev[0], 0.5);
}

TEST(IdxDataset, NamesWhatIsMissing) {
  test::TemporaryDirectory directory;
  expect_error(ExitCode::kData, {"/no/such/place", "no such directory", "dataset-fashion-mnist", "--data"},
               [] { IdxDataset::open("/no/such/place", Split::kTrain); });
  expect_error(ExitCode::kData,
               {directory.file("train-images-idx3-ubyte"), "dataset-fashion-mnist", "--data"},
               [&] { IdxDataset::open(directory.path(), Split::kTrain); });
  write_small(directory, true);
  std::filesystem::remove(directory.file("t10k-labels-idx1-ubyte.gz"));
  EXPECT_NO_THROW(IdxDataset::open(directory.path(), Split::kTrain));
  expect_error(ExitCode::kData, {directory.file("t10k-labels-idx1-ubyte")},
               [&] { IdxDataset::open(directory.path(), Split::kTest); });
  std::filesystem::create_directory(directory.file("t10k-labels-idx1-ubyte"));
  expect_error(ExitCode::kData, {"t10k-labels-idx1-ubyte", "not a regular file"},
               [&] { IdxDataset::open(directory.path(), Split::kTest); });
  std::filesystem::remove(directory.file("t10k-labels-idx1-ubyte"));
  ASSERT_EQ(mkfifo(directory.file("t10k-labels-idx1-ubyte").c_str(), 0600), 0);
  expect_error(ExitCode::kData, {"t10k-labels-idx1-ubyte", "not a regular file"},
               [&] { IdxDataset::open(directory.path(), Split::kTest); });
  std::filesystem::remove(directory.file("t10k-labels-idx1-ubyte"));
  std::filesystem::create_symlink("t10k-labels-idx1-ubyte", directory.file("t10k-labels-idx1-ubyte"));
  expect_error(ExitCode::kData, {"t10k-labels-idx1-ubyte"},
               [&] { IdxDataset::open(directory.path(), Split::kTest); });
}

TEST(IdxDataset, NamesFilesThatDisagree) {
  test::TemporaryDirectory directory;
  write_small(directory, false);
  directory.write("train-labels-idx1-ubyte", idx_bytes({3}, {0, 1, 2}));
  expect_error(ExitCode::kData,
               {"train-images-idx3-ubyte", "4 images", "train-labels-idx1-ubyte", "3 labels"},
               [&] { IdxDataset::open(directory.path(), Split::kTrain); });
  directory.write("train-labels-idx1-ubyte", idx_bytes({4}, {0, 1, 10, 2}));
  expect_error(ExitCode::kData, {"train-labels-idx1-ubyte", "label 10", "index 2", "0..9"},
               [&] { IdxDataset::open(directory.path(), Split::kTrain); });
}

TEST(IdxDataset, NamesImagesOfOtherSizes) {
  test::TemporaryDirectory directory;
  write_small(directory, false);
  directory.write("t10k-images-idx3-ubyte", idx_bytes({2, 5, 4}, Bytes(40)));
  directory.write("t10k-labels-idx1-ubyte", idx_bytes({2}, {0, 1}));
  IdxDataset::open(directory.path(), Split::kTrain);
  expect_error(
      ExitCode::kData,
      {"t10k-images-idx3-ubyte: holds images of 5x4, but ", "train-images-idx3-ubyte holds images of "},
      [&] { IdxDataset::open(directory.path(), Split::kTest); });
}

TEST(IdxDataset, RealFashionMnist) {
  if (!std::filesystem::is_directory(kFashion))
    GTEST_SKIP() << kFashion << " is absent: install the Debian package dataset-fashion-mnist";
  const auto train = IdxDataset::open(kFashion, Split::kTrain);
  const auto test = IdxDataset::open(kFashion, Split::kTest, train->normalization());
  EXPECT_EQ(train->size(), 60000);
  EXPECT_EQ(test->size(), 10000);
  EXPECT_EQ(train->sample_shape(), (SampleShape{1, 28, 28}));
  // These are the usual constants for this dataset.
  EXPECT_NEAR(train->normalization().mean[0], 0.2860, 5e-5);
  EXPECT_NEAR(train->normalization().stddev[0], 0.3530, 5e-5);
  std::vector<float> x(784);
  std::vector<int> counts(10);
  std::int64_t y = 0;
  double sum = 0, squares = 0;
  for (std::int64_t i = 0; i < 60000; ++i) {
    train->get(i, x.data(), &y);
    ++counts[static_cast<std::size_t>(y)];
    for (const float value : x) sum += value, squares += double{value} * value;
  }
  EXPECT_EQ(counts, std::vector<int>(10, 6000));
  EXPECT_NEAR(sum / 60000 / 784, 0, 1e-6);
  EXPECT_NEAR(squares / 60000 / 784, 1, 1e-5);
  const std::vector<std::int64_t> first{9, 2, 1, 1, 6, 1, 4, 6, 5, 7};
  for (std::int64_t i = 0; i < 10; ++i) {
    test->get(i, x.data(), &y);
    EXPECT_EQ(y, first[static_cast<std::size_t>(i)]);
  }
}

}  // namespace
}  // namespace trireme
