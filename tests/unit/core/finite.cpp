#include "core/base/finite.h"

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
  EXPECT_EQ(first_not_finite<T>(tame.data(), tame.size()), tame.size());
  EXPECT_EQ(first_not_finite<T>(nullptr, 0), 0u);
  for (const T bad : {Limits::infinity(), -Limits::infinity(), Limits::quiet_NaN(), -Limits::quiet_NaN()})
    for (const std::size_t at : {0u, 1u, 4095u, 4096u, 9999u}) {
      std::vector<char> bytes(10'000 * sizeof(T) + 1);  // off by one byte, as in a file
      for (std::size_t i = 0; i < 10'000; ++i) {
        const T value = i == at || i == 9999 ? bad : T(1.5);
        std::memcpy(bytes.data() + 1 + i * sizeof(T), &value, sizeof value);
      }
      EXPECT_EQ(first_not_finite<T>(bytes.data() + 1, 10'000), at);
      EXPECT_EQ(first_not_finite<T>(bytes.data() + 1, at), at);
    }
}

TEST(Finite, FindsTheFirstThatIsNot) {
  check<float>();
  check<double>();
}

}  // namespace
}  // namespace trireme
