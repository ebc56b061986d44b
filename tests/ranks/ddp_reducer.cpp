// Tests that mean gradients have the same bits for any world size, bucket size, order of gradients and
// overlap. These are the bits of the canonical tree, for which this file has a simple implementation of its
// own.
#include "distributed/ddp/reducer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "tests/support/rank_test.h"
#include "tests/support/shard_sums.h"

namespace trireme {
namespace {

using namespace test;

const std::vector<Shape> kShapes = {{7}, {3, 5}, {1}, {8, 8}, {300}, {2}};
constexpr int kNeverUsed = 1, kSometimesUsed = 3;

bool has_gradient(int parameter, int shard, int step) {
  if (parameter == kNeverUsed) return false;
  return parameter != kSometimesUsed || (shard + step) % 3 == 1;
}

float gradient_at(int parameter, int shard, int step, std::size_t i) {
  const float value = shard_value(shard + 100 * step, i + 1000 * static_cast<std::size_t>(parameter));
  return std::isfinite(value) ? value : 1.5f;
}

/// Returns the sum of the tree's node over shards [first, first + width). Missing shards count as -0.0.
float tree_sum(int parameter, int step, std::size_t i, int shards, int first, int width) {
  if (first >= shards) return -0.0f;
  if (width == 1) return has_gradient(parameter, first, step) ? gradient_at(parameter, first, step, i) : 0.0f;
  return tree_sum(parameter, step, i, shards, first, width / 2) +
         tree_sum(parameter, step, i, shards, first + width / 2, width / 2);
}

Floats expected_mean(int parameter, int step, int shards) {
  int width = 1;
  while (width < shards) width *= 2;
  Floats mean(static_cast<std::size_t>(kShapes[parameter].numel()));
  for (std::size_t i = 0; i < mean.size(); ++i) {
    mean[i] = tree_sum(parameter, step, i, shards, 0, width) * (1.0f / static_cast<float>(shards));
  }
  return mean;
}

bool used_by_any(int parameter, int step, int shards) {
  for (int shard = 0; shard < shards; ++shard) {
    if (has_gradient(parameter, shard, step)) return true;
  }
  return false;
}

std::vector<NamedTensor> make_parameters() {
  std::vector<NamedTensor> parameters;
  for (const Shape& shape : kShapes) {
    parameters.push_back({fmt::format("p{}", parameters.size()), Tensor::zeros(shape)});
  }
  return parameters;
}

Tensor gradient_of(int parameter, int shard, int step) {
  Floats values(static_cast<std::size_t>(kShapes[parameter].numel()));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = gradient_at(parameter, shard, step, i);
  return Tensor::from(values, kShapes[parameter]);
}

void run_shards(Reducer& reducer, const Communicator& comm, int shards, int step) {
  const ShardRange range = shards_of_rank(shards, comm.size(), comm.rank());
  for (int shard = range.first; shard < range.last; ++shard) {
    reducer.begin_shard();
    for (int k = 0; k < std::ssize(kShapes); ++k) {
      // The order of gradients differs between shards.
      const int parameter = static_cast<int>((k * 5 + shard) % std::ssize(kShapes));
      if (has_gradient(parameter, shard, step)) reducer.add(parameter, gradient_of(parameter, shard, step));
    }
    reducer.end_shard();
  }
  reducer.finish();
}

void check_steps(Communicator& comm, int shards, const ReducerOptions& options) {
  const auto parameters = make_parameters();
  Reducer reducer(comm, shards, parameters, options);
  for (int step = 0; step < 3; ++step) {  // buckets are planned anew after the first
    run_shards(reducer, comm, shards, step);
    for (int p = 0; p < std::ssize(parameters); ++p) {
      const Tensor grad = parameters[p].tensor.grad();
      ASSERT_EQ(grad.defined(), used_by_any(p, step, shards)) << "p" << p << ", " << shards << " shards";
      if (!grad.defined()) continue;
      const Floats got(grad.data<float>(), grad.data<float>() + grad.numel());
      ASSERT_TRUE(same_bits(got, expected_mean(p, step, shards)))
          << "p" << p << ", step " << step << ", " << shards << " shards";
    }
  }
}

TEST(Reducer, SameBitsAtEveryWorldSize) {
  for_each_communicator({1, 2, 3, 4, 5, 8}, [](Communicator& comm) {
    for (int shards = comm.size(); shards <= 9; ++shards) check_steps(comm, shards, {});
  });
}

TEST(Reducer, NeitherBucketsNorOverlapNorReadinessChangeBits) {
  for_each_communicator({1, 3, 4}, [](Communicator& comm) {
    for (const std::size_t bucket_bytes : {std::size_t{4}, std::size_t{300}, std::size_t{25} << 20}) {
      for (const bool overlap : {false, true}) {
        for (const std::uint64_t shuffle : {0u, 7u}) {
          check_steps(comm, 6, {.bucket_bytes = bucket_bytes, .overlap = overlap, .shuffle_ready = shuffle});
        }
      }
    }
  });
}

TEST(Reducer, NamesTheParameterThatIsNotFinite) {
  for_each_communicator({1, 2, 3}, [](Communicator& comm) {
    const auto parameters = make_parameters();
    Reducer reducer(comm, 3, parameters, {});
    const ShardRange range = shards_of_rank(3, comm.size(), comm.rank());
    for (int shard = range.first; shard < range.last; ++shard) {
      reducer.begin_shard();
      for (std::size_t p = 0; p < parameters.size(); ++p) {
        Tensor gradient = Tensor::zeros(kShapes[p]);
        if (p == 3 && shard == 1) gradient.data<float>()[10] = std::nanf("");
        reducer.add(p, gradient);
      }
      reducer.end_shard();
    }
    const std::string message = reducer.finish();
    EXPECT_NE(message.find("p3"), std::string::npos) << message;
    EXPECT_NE(message.find("element 10"), std::string::npos) << message;
  });
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) { return trireme::test::rank_test_main(argc, argv); }
