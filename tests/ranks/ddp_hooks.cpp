// Tests comm hooks: a user's own, and PowerSGD.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "distributed/ddp/power_sgd.h"
#include "distributed/ddp/reducer.h"
#include "examples/user_hook/majority_vote.h"
#include "tests/support/rank_test.h"
#include "tests/support/shard_sums.h"

namespace trireme {
namespace {

using namespace test;

const std::vector<Shape> kShapes = {{40, 30}, {7}, {12, 5, 2, 2}, {3, 2}, {33}};
constexpr int kShards = 6, kNeverUsed = 4;

std::vector<NamedTensor> make_parameters() {
  std::vector<NamedTensor> parameters;
  for (const Shape& shape : kShapes)
    parameters.push_back({fmt::format("p{}", parameters.size()), Tensor::zeros(shape)});
  return parameters;
}

float gradient_at(int step, int shard, std::size_t parameter, std::int64_t i) {
  return static_cast<float>(
      std::sin(0.37 * static_cast<double>(i) * (shard + 1) + step) +
      std::cos(1.3 * static_cast<double>(i / 7) + static_cast<double>(parameter) + shard));
}

using GradientAt = std::function<float(int step, int shard, std::size_t parameter, std::int64_t i)>;

/// Runs one step with all of this rank's shards.
void run_step(Reducer& reducer, const Communicator& comm, int step, const GradientAt& at) {
  const ShardRange range = shards_of_rank(kShards, comm.size(), comm.rank());
  for (int shard = range.first; shard < range.last; ++shard) {
    reducer.begin_shard();
    for (std::size_t p = 0; p < kShapes.size(); ++p) {
      if (p == kNeverUsed) continue;
      Tensor gradient = Tensor::empty(kShapes[p]);
      for (std::int64_t i = 0; i < gradient.numel(); ++i) gradient.data<float>()[i] = at(step, shard, p, i);
      reducer.add(p, gradient);
    }
    reducer.end_shard();
    reducer.launch_ready();
  }
  ASSERT_EQ(reducer.finish(), "");
}

std::vector<Floats> grads_of(const std::vector<NamedTensor>& parameters) {
  std::vector<Floats> all;
  for (const NamedTensor& p : parameters) {
    const Tensor grad = p.tensor.grad();
    EXPECT_EQ(grad.defined(), &p != &parameters[kNeverUsed]) << p.name;
    all.push_back(grad.defined() ? grad.to_vector<float>() : Floats());
  }
  return all;
}

using MakeHook = std::function<std::shared_ptr<CommHook>()>;

/// Returns the mean gradients of three steps.
std::vector<Floats> gradients(Communicator& comm, const MakeHook& make, std::size_t bucket_bytes,
                              bool overlap) {
  const auto parameters = make_parameters();
  Reducer reducer(comm, kShards, parameters,
                  {.bucket_bytes = bucket_bytes, .overlap = overlap, .hook = make()});
  std::vector<Floats> all;
  for (int step = 0; step < 3; ++step) {
    run_step(reducer, comm, step, gradient_at);
    for (Floats& grad : grads_of(parameters)) all.push_back(std::move(grad));
  }
  return all;
}

void expect_same_bits(const MakeHook& make) {
  std::vector<Floats> alone;
  for_each_communicator({1, 2, 3, 4, 6}, [&](Communicator& comm) {
    for (const std::size_t bucket_bytes : {std::size_t{4}, std::size_t{3000}, std::size_t{25} << 20})
      for (const bool overlap : {true, false}) {
        const auto got = gradients(comm, make, bucket_bytes, overlap);
        if (alone.empty()) alone = got;
        ASSERT_EQ(got.size(), alone.size());
        for (std::size_t i = 0; i < got.size(); ++i)
          ASSERT_TRUE(same_bits(got[i], alone[i])) << "gradient " << i << ", buckets of " << bucket_bytes;
      }
  });
}

TEST(Hooks, OneOfTheUsersOwnHasTheSameBitsAtAnyWorldSize) {
  expect_same_bits([] { return make_comm_hook(majority_vote); });
}

TEST(Hooks, PowerSgdHasTheSameBitsAtAnyWorldSize) {
  expect_same_bits([] { return std::make_shared<PowerSgd>(PowerSgdOptions{.rank = 2}); });
}

TEST(Hooks, MajorityVoteIsWhatMostShardsSay) {
  for_each_communicator({1, 2, 3}, [](Communicator& comm) {
    const auto grads = gradients(
        comm, [] { return make_comm_hook(majority_vote); }, 3000, true);
    for (std::size_t p = 0; p < kNeverUsed; ++p)
      for (std::int64_t i = 0; i < kShapes[p].numel(); ++i) {
        int votes = 0;
        for (int shard = 0; shard < kShards; ++shard) votes += gradient_at(0, shard, p, i) > 0 ? 1 : -1;
        ASSERT_EQ(grads[p][static_cast<std::size_t>(i)], votes > 0   ? 1
                                                         : votes < 0 ? -1
                                                                     : 0)
            << "p" << p << ", " << i;
      }
  });
}

/// A reference implementation of PowerSGD for one matrix (n, m) in float64. PowerSGD is linear in the
/// gradients, so the reference only needs their mean over shards.
class Reference {
 public:
  Reference(std::size_t n, std::size_t m, std::vector<double> q)
      : n_(n), m_(m), r_(q.size() / m), q_(std::move(q)), left_(n * m) {}

  std::vector<double> step(const std::vector<double>& gradient) {
    for (std::size_t i = 0; i < left_.size(); ++i) left_[i] += gradient[i];
    std::vector<double> p(r_ * n_), mean(n_ * m_);
    for (std::size_t k = 0; k < r_; ++k)
      for (std::size_t i = 0; i < n_; ++i)
        for (std::size_t j = 0; j < m_; ++j) p[k * n_ + i] += left_[i * m_ + j] * q_[k * m_ + j];
    for (std::size_t k = 0; k < r_; ++k) {
      for (std::size_t b = 0; b < k; ++b) {
        const double along = dot(p, k, b);
        for (std::size_t i = 0; i < n_; ++i) p[k * n_ + i] -= along * p[b * n_ + i];
      }
      const double norm = std::sqrt(dot(p, k, k));
      for (std::size_t i = 0; i < n_; ++i) p[k * n_ + i] /= norm;
    }
    for (std::size_t k = 0; k < r_; ++k)
      for (std::size_t j = 0; j < m_; ++j) {
        q_[k * m_ + j] = 0;
        for (std::size_t i = 0; i < n_; ++i) q_[k * m_ + j] += left_[i * m_ + j] * p[k * n_ + i];
        for (std::size_t i = 0; i < n_; ++i) mean[i * m_ + j] += p[k * n_ + i] * q_[k * m_ + j];
      }
    for (std::size_t i = 0; i < left_.size(); ++i) left_[i] -= mean[i];
    return mean;
  }

 private:
  double dot(const std::vector<double>& p, std::size_t a, std::size_t b) const {
    double sum = 0;
    for (std::size_t i = 0; i < n_; ++i) sum += p[a * n_ + i] * p[b * n_ + i];
    return sum;
  }
  std::size_t n_, m_, r_;
  std::vector<double> q_, left_;
};

TEST(Hooks, PowerSgdBesideItsPaper) {
  for_each_communicator({1, 2, 4}, [](Communicator& comm) {
    const auto parameters = make_parameters();
    const auto hook = std::make_shared<PowerSgd>(PowerSgdOptions{.rank = 2});
    Reducer reducer(comm, kShards, parameters, {.bucket_bytes = 3000, .hook = hook});
    std::vector<Reference> references;
    for (const StateTensor& t : hook->state())
      if (t.name == "p0.q") references.emplace_back(40, 30, t.tensor.to_vector<double>());
    ASSERT_EQ(references.size(), 1u);
    for (int step = 0; step < 4; ++step) {
      run_step(reducer, comm, step, gradient_at);
      std::vector<std::vector<double>> means;
      for (const Shape& shape : kShapes) {
        auto& mean = means.emplace_back(static_cast<std::size_t>(shape.numel()));
        for (std::size_t i = 0; i < mean.size(); ++i)
          for (int shard = 0; shard < kShards; ++shard)
            mean[i] +=
                gradient_at(step, shard, means.size() - 1, static_cast<std::int64_t>(i)) / double{kShards};
      }
      means[0] = references[0].step(means[0]);  // the others are too small for compression, or unused
      means[2].clear();
      const auto grads = grads_of(parameters);
      for (const std::size_t p : {0u, 1u, 3u})
        for (std::size_t i = 0; i < means[p].size(); ++i)
          ASSERT_NEAR(grads[p][i], means[p][i], 2e-5) << "step " << step << ", p" << p << ", element " << i;
    }
  });
}

TEST(Hooks, PowerSgdGivesAGradientOfItsRankBackAndLosesNothingOfOthers) {
  for_each_communicator({1, 3}, [](Communicator& comm) {
    const auto parameters = make_parameters();
    const auto hook = std::make_shared<PowerSgd>(PowerSgdOptions{.rank = 3});
    Reducer reducer(comm, kShards, parameters, {.hook = hook});
    const auto low_rank = [](int, int shard, std::size_t p, std::int64_t i) {
      const double row = static_cast<double>(i / 30), column = static_cast<double>(i % 30);
      return static_cast<float>(p == 0 ? std::sin(row) * std::cos(column) * (shard + 1) + row * 0.01 * column
                                       : 1);
    };
    run_step(reducer, comm, 0, low_rank);
    Floats grad = grads_of(parameters)[0];
    for (std::size_t i = 0; i < grad.size(); ++i) {
      double mean = 0;
      for (int shard = 0; shard < kShards; ++shard)
        mean += static_cast<double>(low_rank(0, shard, 0, static_cast<std::int64_t>(i))) / kShards;
      ASSERT_NEAR(grad[i], mean, 1e-4) << i;
    }
    // Gradients of zero must not break the approximation of later steps.
    run_step(reducer, comm, 1, [](int, int, std::size_t, std::int64_t) { return 0.0f; });
    const Floats nothing = grads_of(parameters)[0];
    for (const float value : nothing) ASSERT_NEAR(value, 0, 1e-4);
    run_step(reducer, comm, 2, low_rank);
    EXPECT_NEAR(grads_of(parameters)[0][31], grad[31], 1e-3);
  });
}

TEST(Hooks, GetGradientsAsTheyAreWhateverElseTravelsIn16Bits) {
  for_each_communicator({1, 2}, [](Communicator& comm) {
    const auto parameters = make_parameters();
    Reducer reducer(comm, kShards, parameters,
                    {.dtype = DType::kBFloat16, .hook = make_comm_hook(majority_vote)});
    run_step(reducer, comm, 0, gradient_at);
    const Floats grad = grads_of(parameters)[1];
    EXPECT_TRUE(std::ranges::all_of(grad, [](float x) { return x == -1 || x == 0 || x == 1; }));
    EXPECT_TRUE(std::ranges::any_of(grad, [](float x) { return x != 0; }));
  });
}

TEST(Hooks, PowerSgdForgetsWhatWasNotFinite) {
  for_each_communicator({1, 3}, [](Communicator& comm) {
    const auto parameters = make_parameters(), fresh_parameters = make_parameters();
    Reducer reducer(comm, kShards, parameters, {.hook = std::make_shared<PowerSgd>(PowerSgdOptions{})}),
        fresh(comm, kShards, fresh_parameters, {.hook = std::make_shared<PowerSgd>(PowerSgdOptions{})});
    const ShardRange range = shards_of_rank(kShards, comm.size(), comm.rank());
    for (int shard = range.first; shard < range.last; ++shard) {
      reducer.begin_shard();
      reducer.add(0, Tensor::full(kShapes[0], shard == 2 ? INFINITY : 1));
      reducer.end_shard();
    }
    EXPECT_NE(reducer.finish().find("p0 is not finite"), std::string::npos);
    run_step(reducer, comm, 1, gradient_at);
    run_step(fresh, comm, 1, gradient_at);
    const auto after = grads_of(parameters), wanted = grads_of(fresh_parameters);
    for (std::size_t p = 0; p < after.size(); ++p) EXPECT_TRUE(same_bits(after[p], wanted[p])) << "p" << p;
  });
}

TEST(Hooks, AreThereBeforeTheFirstStep) {
  for_each_communicator({1, 2}, [](Communicator& comm) {
    const auto parameters = make_parameters();
    Reducer reducer(comm, kShards, parameters, {});
    run_step(reducer, comm, 0, gradient_at);
    EXPECT_NE(
        error_of([&] { reducer.set_hook(make_comm_hook(majority_vote)); }).find("before the first step"),
        std::string::npos);
  });
}

TEST(Hooks, RefuseVectorsThatDoNotFit) {
  for_each_communicator({1, 2}, [](Communicator& comm) {
    const auto parameters = make_parameters();
    const auto few = [](GradientBucket& bucket) { bucket.sum({}, bucket.mean()); };
    const auto narrow = [](GradientBucket& bucket) {
      bucket.sum(bucket.parts(), Tensor::empty(bucket.mean().shape(), DType::kBFloat16));
    };
    for (const auto& [hook, message] : {std::pair(make_comm_hook(few), "needs a vector for each of"),
                                        std::pair(make_comm_hook(narrow), "dtypes and sizes must agree")}) {
      Reducer reducer(comm, kShards, parameters, {.hook = hook});
      EXPECT_NE(error_of([&] { run_step(reducer, comm, 0, gradient_at); }).find(message), std::string::npos);
    }
  });
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) { return trireme::test::rank_test_main(argc, argv); }
