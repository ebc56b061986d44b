// Tests the translator's number of parameters, which is computed before the model is built.
#include <gtest/gtest.h>

#include "examples/train_gnmt/model.h"

namespace trireme {
namespace {

TEST(Gnmt, CountsItsParametersBeforeItIsBuilt) {
  for (const std::int64_t layers : {1, 3}) {
    const GnmtOptions options{.layers = layers, .width = 6, .vocabulary = 11};
    Gnmt model(options);
    std::int64_t count = 0;
    for (const NamedTensor& p : model.parameters()) count += p.tensor.numel();
    EXPECT_EQ(parameter_count(options), static_cast<double>(count)) << layers;
  }
}

}  // namespace
}  // namespace trireme
