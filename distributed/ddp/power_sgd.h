// PowerSGD: gradients of matrices travel as products of two thin ones.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "distributed/ddp/comm_hook.h"

namespace trireme {

struct PowerSgdOptions {
  int rank = 2;            ///< columns of the thin matrices, at least 1
  double least_gain = 2;   ///< parameters that would not travel in this much less are sent as they are
  std::uint64_t seed = 0;  ///< of the first thin matrices
};

/// T. Vogels, S. P. Karimireddy, M. Jaggi, "PowerSGD: practical low-rank gradient compression for distributed
/// optimization", 2019, with error feedback and warm start. A parameter (n, ...) is a matrix of n rows; of
/// each (n, m) matrix rank * (n + m) numbers travel. One-dimensional parameters travel as they are.
///
/// Every shard is compressed apart and keeps what was left of its gradients, so that the mean has the same
/// bits at any world size: a rank keeps a copy of the gradient for each of its shards. A parameter that no
/// shard uses in a step loses some of what was left of it, and gradients that are not finite all of it.
/// What is left is not rescaled where a GradScaler changes its scale. Steps of several passes are refused.
class PowerSgd final : public CommHook {
 public:
  /// Throws Error(kUsage) for a rank below 1.
  explicit PowerSgd(PowerSgdOptions options);
  void attach(const std::vector<NamedTensor>& parameters, int shards, ShardRange range) override;
  void reduce(GradientBucket& bucket) override;
  void forget() override;
  /// Of each matrix "<parameter>.q", (rank, m) on all ranks, and "<parameter>.error", (shards, n, m), of
  /// which a rank holds its shards.
  std::vector<StateTensor> state() const override;

 private:
  struct Matrix {
    std::int64_t rows = 0, columns = 0, rank = 0;
    Tensor q;      ///< (rank, columns)
    Tensor error;  ///< (shards here, rows, columns)
  };
  /// A matrix of a bucket: where its parts lie in the vectors that travel.
  struct Place {
    const Matrix* matrix;
    std::int64_t gradient, p, q;
  };
  struct Exchange;

  /// The q to begin with.
  Tensor first_q(const std::string& parameter, const Matrix& matrix, Device device) const;
  void sum_others(GradientBucket& bucket) const;
  static void project(const Exchange& x, const std::vector<Tensor>& parts);
  static void project_back(const Exchange& x);
  static void decompress(const Exchange& x, const Tensor& mean);

  const PowerSgdOptions options_;
  int shards_ = 0;
  ShardRange range_;
  std::map<std::string, Matrix> matrices_;  ///< by parameter
};

}  // namespace trireme
