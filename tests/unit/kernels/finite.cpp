#include "kernels/finite.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <vector>

namespace trireme {
namespace {

template <class T>
void check() {
  using Limits = std::numeric_limits<T>;
  const std::vector<T> tame = {
      0, T(-0.0), Limits::max(), Limits::lowest(), Limits::denorm_min(), Limits::min()};
  EXPECT_EQ(first_not_finite(tame.data(), tame.size(), dtype_of<T>), tame.size());
  EXPECT_EQ(first_not_finite(nullptr, 0, dtype_of<T>), 0u);
  for (const T bad : {Limits::infinity(), -Limits::infinity(), Limits::quiet_NaN(), -Limits::quiet_NaN()})
    for (const std::size_t at : {0u, 1u, 4095u, 4096u, 9999u}) {
      std::vector<char> bytes(10'000 * sizeof(T) + 1);  // numbers begin at an odd address, as in a file
      for (std::size_t i = 0; i < 10'000; ++i) {
        const T value = i == at || i == 9999 ? bad : T(1.5);
        std::memcpy(bytes.data() + 1 + i * sizeof(T), &value, sizeof value);
      }
      EXPECT_EQ(first_not_finite(bytes.data() + 1, 10'000, dtype_of<T>), at);
      EXPECT_EQ(first_not_finite(bytes.data() + 1, at, dtype_of<T>), at);
    }
}

TEST(Finite, FindsTheFirstThatIsNot) {
  check<float>();
  check<double>();
}

TEST(Finite, KnowsSixteenBitsAndIntegers) {
  const float inf = std::numeric_limits<float>::infinity();
  const BFloat16 wide[] = {1.0f, 3e38f, -inf, 2.0f};
  const Float16 fine[] = {1.0f, 65504.0f, -0.0f, std::numeric_limits<float>::quiet_NaN()};
  EXPECT_EQ(first_not_finite(wide, 4, DType::kBFloat16), 2u);
  EXPECT_EQ(first_not_finite(wide, 2, DType::kBFloat16), 2u);
  EXPECT_EQ(first_not_finite(fine, 4, DType::kFloat16), 3u);
  EXPECT_EQ(first_not_finite(fine, 3, DType::kFloat16), 3u);
  const std::int64_t bits[] = {-1, 0x7ff0000000000000};
  EXPECT_EQ(first_not_finite(bits, 2, DType::kInt64), 2u);
}

}  // namespace
}  // namespace trireme
