#include "core/base/nearest.h"

#include <gtest/gtest.h>

namespace trireme {
namespace {

TEST(Nearest, FindsOneWithinAThirdOfTheLetters) {
  const std::vector<std::string> known = {"--steps", "--shards", "--seed", "--global-batch"};
  EXPECT_EQ(nearest("--stepz", known), "--steps");
  EXPECT_EQ(nearest("--step", known), "--steps");
  EXPECT_EQ(nearest("--globel-btch", known), "--global-batch");
  EXPECT_EQ(nearest("--sted", known), "--seed");  // differs in one letter; --steps in two
  EXPECT_EQ(nearest("--velocity", known), "");
  EXPECT_EQ(nearest("-x", known), "");
  EXPECT_EQ(nearest("", known), "");
  EXPECT_EQ(nearest("--steps", {}), "");
}

}  // namespace
}  // namespace trireme
