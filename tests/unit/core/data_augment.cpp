#include "core/data/augment.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <set>
#include <tuple>
#include <vector>

#include "tests/unit/core/data_files.h"

namespace trireme {
namespace {

constexpr SampleShape kShape{2, 5, 7};

std::vector<float> image(const SampleShape& shape) {
  std::vector<float> x(static_cast<std::size_t>(shape.elements()));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i + 1);
  return x;
}

std::vector<float> augmented(const Augmentation& how, RandomKey key, std::int64_t index,
                             const SampleShape& shape) {
  const std::vector<float> in = image(shape);
  std::vector<float> out(in.size(), std::nanf(""));
  augment(how, key, index, shape, in.data(), out.data());
  return out;
}

/// Returns the augmented image by the definition, element by element.
std::vector<float> shifted(const SampleShape& shape, std::int64_t down, std::int64_t right, bool mirrored) {
  const std::vector<float> in = image(shape);
  std::vector<float> out;
  for (std::int64_t row = 0; row < shape.height; ++row)
    for (std::int64_t column = 0; column < shape.width; ++column)
      for (std::int64_t c = 0; c < shape.channels; ++c) {
        const std::int64_t from_row = row + down;
        const std::int64_t from_column = (mirrored ? shape.width - 1 - column : column) + right;
        const bool inside =
            from_row >= 0 && from_row < shape.height && from_column >= 0 && from_column < shape.width;
        out.push_back(
            inside ? in[static_cast<std::size_t>((from_row * shape.width + from_column) * shape.channels + c)]
                   : 0.0f);
      }
  return out;
}

TEST(Augment, NothingAskedNothingDone) {
  EXPECT_FALSE(Augmentation{}.active());
  for (std::int64_t i = 0; i < 20; ++i) EXPECT_EQ(augmented({}, {1}, i, kShape), image(kShape));
}

// The expected shifts and mirrors are from an independent implementation in Python. A change of these numbers
// breaks the resume of running jobs.
TEST(Augment, KnownAnswers) {
  const std::vector<std::tuple<int, int, bool>> expected{{-2, -2, false}, {4, 4, true},  {1, 1, false},
                                                         {0, 3, true},    {-3, 3, true}, {1, 0, true},
                                                         {-1, 1, true},   {2, 1, true}};
  const RandomKey key = augmentation_key(5, 3);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const auto [down, right, mirrored] = expected[i];
    const std::int64_t index = static_cast<std::int64_t>(i);
    EXPECT_EQ(augmented({4, true}, key, index, kShape), shifted(kShape, down, right, mirrored)) << i;
    EXPECT_EQ(augmented({4, false}, key, index, kShape), shifted(kShape, down, right, false)) << i;
    EXPECT_EQ(augmented({0, true}, key, index, kShape), shifted(kShape, 0, 0, mirrored)) << i;
  }
}

// All shifts are in the allowed range and occur about equally often, and half of the images are mirrored.
TEST(Augment, DrawsUniformly) {
  constexpr int kPadding = 2, kSamples = 20000;
  std::vector<int> counts(2 * 5 * 5);
  std::vector<std::vector<float>> known;
  for (int down = -kPadding; down <= kPadding; ++down)
    for (int right = -kPadding; right <= kPadding; ++right)
      for (const bool mirrored : {false, true}) known.push_back(shifted(kShape, down, right, mirrored));
  const RandomKey key = augmentation_key(0, 0);
  for (std::int64_t i = 0; i < kSamples; ++i) {
    const auto found = std::find(known.begin(), known.end(), augmented({kPadding, true}, key, i, kShape));
    ASSERT_NE(found, known.end());
    ++counts[static_cast<std::size_t>(found - known.begin())];
  }
  double chi = 0;
  for (const int count : counts) chi += std::pow(count - kSamples / 50.0, 2) / (kSamples / 50.0);
  EXPECT_LT(chi, 94);  // 49 degrees of freedom: passed by chance less than once in 10^4
  EXPECT_GT(chi, 18);
}

TEST(Augment, PaddingMayExceedTheImage) {
  for (const SampleShape shape : {SampleShape{1, 1, 1}, SampleShape{3, 2, 4}, SampleShape{1, 3, 1}})
    for (std::int64_t i = 0; i < 500; ++i) {
      const auto bits = philox({9}, 0, static_cast<std::uint64_t>(i));
      const std::int64_t down = to_bounded(bits[0], 21), right = to_bounded(bits[1], 21);
      EXPECT_EQ(augmented({10, true}, {9}, i, shape), shifted(shape, down - 10, right - 10, bits[2] >> 31));
    }
}

TEST(Augment, DependsOnSeedEpochAndSample) {
  std::set<std::vector<float>> seen;
  const Augmentation how{4, true};
  for (const RandomKey key : {augmentation_key(0, 0), augmentation_key(0, 1), augmentation_key(1, 0)}) {
    std::vector<float> all;
    for (std::int64_t i = 0; i < 10; ++i) {
      const std::vector<float> one = augmented(how, key, i, kShape);
      all.insert(all.end(), one.begin(), one.end());
    }
    seen.insert(all);
  }
  EXPECT_EQ(seen.size(), 3u);
  test::expect_error(ExitCode::kInternal, {"padding -1"}, [] { augmented({-1, false}, {1}, 0, kShape); });
}

}  // namespace
}  // namespace trireme
