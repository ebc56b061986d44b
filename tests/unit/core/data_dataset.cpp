#include "core/data/dataset.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "core/data/cifar.h"
#include "core/data/synthetic.h"
#include "tests/unit/core/data_files.h"

namespace trireme {
namespace {

using test::Bytes;
using test::expect_error;

std::pair<std::vector<float>, std::int64_t> sample(const ImageDataset& data, std::int64_t index) {
  std::vector<float> x(static_cast<std::size_t>(data.sample_shape().elements()), std::nanf(""));
  std::int64_t y = -1;
  data.get(index, x.data(), &y);
  return {x, y};
}

TEST(SyntheticDataset, HasTheShapeItWasAskedFor) {
  const auto plain = open_dataset("synthetic", Split::kTrain);
  EXPECT_EQ(plain->sample_shape(), (SampleShape{1, 28, 28}));
  EXPECT_EQ(plain->classes(), 10);
  EXPECT_EQ(plain->size(), 60000);
  EXPECT_EQ(open_dataset("synthetic:", Split::kTest)->size(), 10000);
  const auto odd = open_dataset("synthetic:3,5,17,7,100", Split::kTrain);
  EXPECT_EQ(odd->sample_shape(), (SampleShape{3, 5, 17}));
  EXPECT_EQ(odd->classes(), 7);
  EXPECT_EQ(odd->size(), 100);
  EXPECT_EQ(open_dataset("synthetic:1,1,1,2,3", Split::kTest)->size(), 1);
  const std::string endless = "synthetic:1,28,28,10,1000000000000";
  EXPECT_EQ(open_dataset(endless, Split::kTrain)->size(), 1'000'000'000'000);
  EXPECT_EQ(open_dataset(endless, Split::kTest)->size(), 10000);
}

TEST(SyntheticDataset, IsAPureFunctionOfItsParameters) {
  const SyntheticDataset a({3, 9, 11}, 4, 50, Split::kTrain), b({3, 9, 11}, 4, 99, Split::kTrain);
  const SyntheticDataset other_split({3, 9, 11}, 4, 50, Split::kTest),
      other_seed({3, 9, 11}, 4, 50, Split::kTrain, 1);
  for (const std::int64_t i : {49, 0, 7}) {
    EXPECT_EQ(sample(a, i), sample(b, i));
    EXPECT_EQ(sample(a, i).second, i % 4);
    EXPECT_NE(sample(a, i), sample(other_split, i));
    EXPECT_NE(sample(a, i), sample(other_seed, i));
  }
  EXPECT_NE(sample(a, 0), sample(a, 4));
  expect_error(ExitCode::kInternal, {"index 50", "0..49"}, [&] { sample(a, 50); });
}

// Classifying the test split by the nearest class mean of the training split must work.
TEST(SyntheticDataset, CanBeLearned) {
  for (const SampleShape shape : {SampleShape{1, 28, 28}, SampleShape{3, 4, 20}}) {
    const SyntheticDataset train(shape, 10, 500, Split::kTrain), test(shape, 10, 200, Split::kTest);
    std::vector<std::vector<double>> means(10,
                                           std::vector<double>(static_cast<std::size_t>(shape.elements())));
    double sum = 0, squares = 0;
    for (std::int64_t i = 0; i < 500; ++i) {
      const auto [x, y] = sample(train, i);
      for (std::size_t j = 0; j < x.size(); ++j) means[static_cast<std::size_t>(y)][j] += x[j] / 50.0;
      for (const float value : x) sum += value, squares += double{value} * value;
    }
    const double count = 500.0 * static_cast<double>(shape.elements());
    EXPECT_NEAR(sum / count, 0, 0.1);
    EXPECT_NEAR(squares / count, 1, 0.1);
    int right = 0;
    for (std::int64_t i = 0; i < 200; ++i) {
      const auto [x, y] = sample(test, i);
      double best = std::numeric_limits<double>::infinity();
      std::int64_t guess = -1;
      for (std::int64_t c = 0; c < 10; ++c) {
        double distance = 0;
        for (std::size_t j = 0; j < x.size(); ++j)
          distance += std::pow(x[j] - means[static_cast<std::size_t>(c)][j], 2);
        if (distance < best) best = distance, guess = c;
      }
      right += guess == y;
    }
    EXPECT_GE(right, 195);
  }
}

TEST(OpenDataset, RefusesWhatItDoesNotUnderstand) {
  for (const char* spec : {"", "mnist", "idx", "idx:", "cifar:", "tar:x", ":", "Synthetic"})
    expect_error(ExitCode::kUsage, {fmt::format("'{}'", spec), "idx:DIR", "synthetic"},
                 [&] { open_dataset(spec, Split::kTrain); });
  for (const char* numbers :
       {"1", "1,2,3,4", "1,2,3,4,5,6", "1,2,3,4,", "0,2,3,4,5", "1,2,3,4,-5", "1,2,x,4,5", "1,2,3,4,5 ",
        "1,2,3,4,99999999999999999999", "1048576,1048576,1048576,2,2", "1,8,8,100000000,5",
        "4294967296,4294967296,1,1,1", "1,4294967296,4294967296,1,1"})
    expect_error(ExitCode::kUsage, {numbers, "C,H,W,classes,count"},
                 [&] { open_dataset(std::string("synthetic:") + numbers, Split::kTrain); });
  expect_error(ExitCode::kData, {"/no/such/place"},
               [] { open_dataset("idx:/no/such/place", Split::kTrain); });
  expect_error(ExitCode::kData, {"/no/such/place"},
               [] { open_dataset("cifar:/no/such/place", Split::kTrain); });
}

constexpr std::size_t kRecord = 3073;

Bytes cifar_records(std::size_t count, std::uint8_t first_label) {
  Bytes bytes = test::pattern_bytes(count * kRecord);
  for (std::size_t i = 0; i < count; ++i)
    bytes[i * kRecord] = static_cast<std::uint8_t>((first_label + i) % 10);
  return bytes;
}

void write_cifar(const test::TemporaryDirectory& directory, const std::string& prefix) {
  for (std::uint8_t i = 1; i <= 5; ++i)
    directory.write(fmt::format("{}data_batch_{}.bin", prefix, i), cifar_records(2, i));
  directory.write(prefix + "test_batch.bin", cifar_records(3, 7));
}

TEST(CifarDataset, TurnsPlanesIntoChannelsLast) {
  for (const std::string prefix : {"", "cifar-10-batches-bin/"}) {
    test::TemporaryDirectory directory;
    if (!prefix.empty()) std::filesystem::create_directory(directory.file(prefix));
    write_cifar(directory, prefix);
    const auto train = open_dataset("cifar:" + directory.path(), Split::kTrain);
    EXPECT_EQ(train->size(), 10);
    EXPECT_EQ(train->sample_shape(), (SampleShape{3, 32, 32}));
    EXPECT_EQ(train->classes(), 10);
    const auto test = CifarDataset::open(directory.path(), Split::kTest);
    EXPECT_EQ(test->size(), 3);
    const Normalization& n = test->normalization();
    ASSERT_EQ(n.mean.size(), 3u);
    const Bytes raw = cifar_records(2, 4);
    const auto [x, y] = sample(*train, 7);  // the second record of the fourth file
    EXPECT_EQ(y, 5);
    for (std::size_t c = 0; c < 3; ++c)
      for (std::size_t i = 0; i < 1024; ++i)
        ASSERT_NEAR(x[i * 3 + c], (raw[kRecord + 1 + c * 1024 + i] / 255.0 - n.mean[c]) / n.stddev[c], 1e-5);
    EXPECT_EQ(sample(*test, 2).second, 9);
  }
}

TEST(CifarDataset, NamesWhatIsWrong) {
  test::TemporaryDirectory directory;
  const auto open = [&] { CifarDataset::open(directory.path(), Split::kTrain); };
  write_cifar(directory, "");
  EXPECT_NO_THROW(open());
  Bytes bytes = cifar_records(2, 0);
  bytes[kRecord] = 10;
  directory.write("data_batch_3.bin", bytes);
  expect_error(ExitCode::kData, {"data_batch_3.bin", "label 10", "index 1", "0..9"}, open);
  bytes.pop_back();
  directory.write("data_batch_3.bin", bytes);
  expect_error(ExitCode::kData, {"data_batch_3.bin", "6145 bytes", "3073"}, open);
  directory.write("data_batch_3.bin", {});
  expect_error(ExitCode::kData, {"data_batch_3.bin", "0 bytes"}, open);
  std::filesystem::remove(directory.file("data_batch_3.bin"));
  expect_error(ExitCode::kData, {"data_batch_3.bin", "No such file", "cifar:DIR"}, open);
}

}  // namespace
}  // namespace trireme
