// Trains a small network with autograd in float32, and the same network written by hand in float64, with
// plain loops and manually derived gradients. Their losses must agree at every step.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <thread>

#include "core/autograd/autograd.h"
#include "core/nn/layers.h"
#include "core/optim/optimizer.h"
#include "kernels/table.h"

namespace trireme {
namespace {

constexpr std::int64_t kN = 16, kIn = 2, kOut = 4, kSize = 8, kHalf = kSize / 2, kClasses = 5,
                       kFeatures = kOut * kHalf * kHalf;
constexpr std::int64_t kPixels = kSize * kSize;
constexpr int kSteps = 20;
constexpr double kRate = 0.05, kMomentum = 0.9, kDecay = 1e-3;

using Doubles = std::vector<double>;

double& at(Doubles& v, std::int64_t i) { return v[static_cast<std::size_t>(i)]; }
Doubles zeros(std::int64_t n) { return Doubles(static_cast<std::size_t>(n)); }

struct Batch {
  Tensor x;       // (kN, kIn, kSize, kSize)
  Tensor labels;  // (kN)
};

/// Returns noise with a stripe that depends on the class, so that there is something to learn.
Batch batch_of(std::uint64_t step) {
  Batch b{normal({kN, kIn, kSize, kSize}, random_key(1, step, 0)), Tensor::empty({kN}, DType::kInt64)};
  for (std::int64_t n = 0; n < kN; ++n) {
    const std::int64_t label =
        to_bounded(philox(random_key(1, step, 1), 0, static_cast<std::uint64_t>(n))[0], kClasses);
    b.labels.data<std::int64_t>()[n] = label;
    for (std::int64_t w = 0; w < kSize; ++w)
      b.x.data<float>()[(n * kIn * kSize + label + 1) * kSize + w] += 1.5f;
  }
  return b;
}

struct Net : nn::Module {
  nn::Conv2d conv{kIn, kOut, 3, {.padding = 1}};
  nn::BatchNorm2d norm{kOut, {.relu = true}};
  nn::MaxPool2d pool{{.kernel = 2}};
  nn::Linear head{kFeatures, kClasses};
  Tensor forward(const Tensor& x) override { return head(flatten(pool(norm(conv(x))), 1)); }
  void visit(nn::Visitor& v) override {
    v.module("conv", conv);
    v.module("norm", norm);
    v.module("head", head);
  }
};

enum class Fault { kNone, kGammaTooLarge, kNormForgetsMean, kNoHeadBias, kPoolTakesFirst };

/// The network written by hand. Its parameters are, in order: conv weight, bias, gamma, beta, head weight,
/// bias.
class ByHand {
 public:
  ByHand(nn::Module& net, Fault fault) : fault_(fault) {
    for (const NamedTensor& p : net.parameters()) {
      parameters_.push_back(p.tensor.to_vector<double>());
      velocity_.push_back(zeros(p.tensor.numel()));
    }
  }

  double step(const Batch& batch) {
    x_ = batch.x.to_vector<double>();
    labels_ = batch.labels.to_vector<std::int64_t>();
    gradients_.clear();
    for (const Doubles& p : parameters_) gradients_.push_back(zeros(static_cast<std::int64_t>(p.size())));
    convolve();
    normalize();
    pool();
    const double loss = classify();
    through_pool_and_norm();
    through_convolution();
    for (std::size_t p = 0; p < parameters_.size(); ++p)
      for (std::size_t i = 0; i < parameters_[p].size(); ++i) {
        velocity_[p][i] = kMomentum * velocity_[p][i] + gradients_[p][i] + kDecay * parameters_[p][i];
        parameters_[p][i] -= kRate * velocity_[p][i];
      }
    return loss;
  }

 private:
  /// Calls fn(z index, x index, weight index) for every product of the convolution.
  template <class Fn>
  static void for_each_product(const Fn& fn) {
    for (std::int64_t n = 0; n < kN; ++n)
      for (std::int64_t o = 0; o < kOut; ++o)
        for (std::int64_t p = 0; p < kPixels; ++p)
          for (std::int64_t q = 0; q < kIn * 9; ++q) {
            const std::int64_t y = p / kSize + q % 9 / 3 - 1, x = p % kSize + q % 3 - 1;
            if (y >= 0 && y < kSize && x >= 0 && x < kSize)
              fn((n * kOut + o) * kPixels + p, (n * kIn + q / 9) * kPixels + y * kSize + x, o * kIn * 9 + q);
          }
  }

  void convolve() {
    z_ = zeros(kN * kOut * kPixels);
    for (std::int64_t i = 0; i < kN * kOut * kPixels; ++i) at(z_, i) = at(parameters_[1], i / kPixels % kOut);
    for_each_product([&](auto z, auto x, auto w) { at(z_, z) += at(x_, x) * at(parameters_[0], w); });
  }

  void normalize() {
    const double count = kN * kPixels;
    mean_ = rstd_ = zeros(kOut);
    for (std::int64_t i = 0; i < kN * kOut * kPixels; ++i) at(mean_, i / kPixels % kOut) += at(z_, i) / count;
    for (std::int64_t i = 0; i < kN * kOut * kPixels; ++i)
      at(rstd_, i / kPixels % kOut) += std::pow(at(z_, i) - at(mean_, i / kPixels % kOut), 2) / count;
    for (double& v : rstd_) v = 1 / std::sqrt(v + 1e-5);
    xhat_ = active_ = zeros(kN * kOut * kPixels);
    for (std::int64_t i = 0; i < kN * kOut * kPixels; ++i) {
      const std::int64_t c = i / kPixels % kOut;
      at(xhat_, i) = (at(z_, i) - at(mean_, c)) * at(rstd_, c);
      at(active_, i) = std::max(0.0, at(parameters_[2], c) * at(xhat_, i) + at(parameters_[3], c));
    }
  }

  void pool() {
    pooled_ = zeros(kN * kFeatures);
    from_.assign(static_cast<std::size_t>(kN * kFeatures), 0);
    for (std::int64_t i = 0; i < kN * kFeatures; ++i) {
      const std::int64_t plane = i / (kHalf * kHalf), y = i / kHalf % kHalf * 2, x = i % kHalf * 2,
                         first = plane * kPixels + y * kSize + x;
      std::int64_t best = first;
      for (const std::int64_t other : {first + 1, first + kSize, first + kSize + 1})
        if (at(active_, other) > at(active_, best)) best = other;
      at(pooled_, i) = at(active_, best);
      from_[static_cast<std::size_t>(i)] = fault_ == Fault::kPoolTakesFirst ? first : best;
    }
  }

  /// Returns the loss, and stores the gradients of the head and of the pooled values.
  double classify() {
    double loss = 0;
    dpooled_ = zeros(kN * kFeatures);
    for (std::int64_t n = 0; n < kN; ++n) {
      Doubles logits = zeros(kClasses);
      double sum = 0;
      for (std::int64_t k = 0; k < kClasses; ++k) {
        at(logits, k) = at(parameters_[5], k);
        for (std::int64_t f = 0; f < kFeatures; ++f)
          at(logits, k) += at(parameters_[4], k * kFeatures + f) * at(pooled_, n * kFeatures + f);
        sum += std::exp(at(logits, k));
      }
      const std::int64_t label = labels_[static_cast<std::size_t>(n)];
      loss += (std::log(sum) - at(logits, label)) / kN;
      for (std::int64_t k = 0; k < kClasses; ++k) {
        const double g = (std::exp(at(logits, k)) / sum - (k == label)) / kN;
        at(gradients_[5], k) += fault_ == Fault::kNoHeadBias ? 0 : g;
        for (std::int64_t f = 0; f < kFeatures; ++f) {
          at(gradients_[4], k * kFeatures + f) += g * at(pooled_, n * kFeatures + f);
          at(dpooled_, n * kFeatures + f) += g * at(parameters_[4], k * kFeatures + f);
        }
      }
    }
    return loss;
  }

  void through_pool_and_norm() {
    Doubles g = zeros(kN * kOut * kPixels);
    for (std::int64_t i = 0; i < kN * kFeatures; ++i) {
      const std::int64_t from = from_[static_cast<std::size_t>(i)];
      if (at(active_, from) > 0) at(g, from) += at(dpooled_, i);
    }
    for (std::int64_t i = 0; i < kN * kOut * kPixels; ++i) {
      at(gradients_[2], i / kPixels % kOut) +=
          at(g, i) * at(xhat_, i) * (fault_ == Fault::kGammaTooLarge ? 1.05 : 1);
      at(gradients_[3], i / kPixels % kOut) += at(g, i);
    }
    const double count = kN * kPixels;
    dz_ = zeros(kN * kOut * kPixels);
    for (std::int64_t i = 0; i < kN * kOut * kPixels; ++i) {
      const std::int64_t c = i / kPixels % kOut;
      const double mean_gx = fault_ == Fault::kNormForgetsMean ? 0 : at(gradients_[2], c) / count;
      at(dz_, i) = at(parameters_[2], c) * at(rstd_, c) *
                   (at(g, i) - at(gradients_[3], c) / count - at(xhat_, i) * mean_gx);
    }
  }

  void through_convolution() {
    for (std::int64_t i = 0; i < kN * kOut * kPixels; ++i)
      at(gradients_[1], i / kPixels % kOut) += at(dz_, i);
    for_each_product([&](auto z, auto x, auto w) { at(gradients_[0], w) += at(dz_, z) * at(x_, x); });
  }

  Fault fault_;
  std::vector<Doubles> parameters_, velocity_, gradients_;
  Doubles x_, z_, mean_, rstd_, xhat_, active_, pooled_, dpooled_, dz_;
  std::vector<std::int64_t> labels_, from_;
};

double engine_step(Net& net, optim::SGD& sgd, const Batch& batch) {
  sgd.zero_grad();
  const Tensor loss = cross_entropy(net(batch.x), batch.labels);
  loss.backward();
  sgd.step();
  return loss.item();
}

/// Returns the largest difference of the losses over all steps, relative to the reference.
double largest_difference(Fault fault) {
  nn::manual_seed(4);
  Net net;
  ByHand reference(net, fault);
  optim::SGD sgd(net.parameters(), {.lr = kRate, .momentum = kMomentum, .weight_decay = kDecay});
  double worst = 0, first = 0, last = 0;
  for (int step = 0; step < kSteps; ++step) {
    const Batch batch = batch_of(static_cast<std::uint64_t>(step % 4));
    last = reference.step(batch);
    if (step == 0) first = last;
    worst = std::max(worst, std::fabs(engine_step(net, sgd, batch) - last) / last);
  }
  EXPECT_LT(last, 0.5 * first) << "nothing was learned, so nothing was compared";
  return worst;
}

TEST(TrainingCurve, MatchesTheHandWrittenNetworkAtEveryStep) {
  EXPECT_LT(largest_difference(Fault::kNone), 1e-3);
}

TEST(TrainingCurve, NoticesAPlantedGradientError) {
  for (const Fault fault :
       {Fault::kGammaTooLarge, Fault::kNormForgetsMean, Fault::kNoHeadBias, Fault::kPoolTakesFirst})
    EXPECT_GT(largest_difference(fault), 1e-2) << static_cast<int>(fault);
}

/// Each thread trains its own network, as ranks that are threads do.
TEST(TrainingCurve, ThreadsTrainNetsOfTheirOwn) {
  constexpr int kThreads = 4;
  std::vector<double> losses[kThreads];
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&losses, t] {
      set_threads(1);
      nn::manual_seed(4);
      Net net;
      optim::SGD sgd(net.parameters(), {.lr = kRate, .momentum = kMomentum});
      for (std::uint64_t step = 0; step < kSteps; ++step)
        losses[t].push_back(engine_step(net, sgd, batch_of(step)));
    });
  for (std::thread& thread : threads) thread.join();
  for (int t = 1; t < kThreads; ++t) EXPECT_EQ(losses[t], losses[0]) << "the same bits on every thread";
}

}  // namespace
}  // namespace trireme
