#include <gtest/gtest.h>

#include <cmath>

#include "core/metrics/meter.h"
#include "kernels/error.h"

namespace trireme {
namespace {

TEST(WindowedMean, ForgetsAllButTheNewest) {
  WindowedMean mean(3);
  EXPECT_TRUE(std::isnan(mean.mean()));
  mean.add(1);
  EXPECT_EQ(mean.mean(), 1);
  mean.add(2);
  mean.add(6);
  EXPECT_EQ(mean.mean(), 3);
  mean.add(10);
  EXPECT_EQ(mean.mean(), 6);
  mean.add(5);
  EXPECT_EQ(mean.mean(), 7);
  EXPECT_EQ(mean.count(), 3u);
  EXPECT_THROW(WindowedMean(0), Error);
}

TEST(WindowedMean, NaNPasses) {
  WindowedMean mean(2);
  mean.add(std::nan(""));
  mean.add(4);
  EXPECT_TRUE(std::isnan(mean.mean()));
  mean.add(6);
  EXPECT_EQ(mean.mean(), 5);
}

TEST(Throughput, IsTheRateOfSteadyWork) {
  Throughput rate(10);
  EXPECT_TRUE(std::isnan(rate.per_second()));
  for (int i = 0; i < 100; ++i) rate.add(64, 0.5);
  EXPECT_NEAR(rate.per_second(), 128, 1e-9);
}

TEST(Throughput, ForgetsASlowStartByHalfLives) {
  Throughput rate(10);
  rate.add(0, 10);     // nothing was done at the start
  rate.add(1000, 10);  // after one half-life, the first 10 s count half: 1000 / (5 + 10)
  EXPECT_NEAR(rate.per_second(), 1000 / 15.0, 1e-9);
  for (int i = 0; i < 1000; ++i) rate.add(100, 1);
  EXPECT_NEAR(rate.per_second(), 100, 1e-6);
  EXPECT_THROW(Throughput(0), Error);
}

TEST(HiddenFraction, IsWhatIsNotExposed) {
  EXPECT_DOUBLE_EQ(hidden_fraction(10, 2.5), 0.75);
  EXPECT_EQ(hidden_fraction(10, 0), 1);
  EXPECT_EQ(hidden_fraction(10, 12), 0);  // a wait may be longer than the transfer
  EXPECT_TRUE(std::isnan(hidden_fraction(0, 0)));
}

}  // namespace
}  // namespace trireme
