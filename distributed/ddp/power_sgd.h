// PowerSGD sends the gradient of a matrix as the product of two thin matrices.
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
  double least_gain = 2;   ///< matrices that would shrink by less than this factor are not compressed
  std::uint64_t seed = 0;  ///< seed of the initial thin matrices
};

/// Implements T. Vogels, S. P. Karimireddy, M. Jaggi, "PowerSGD: practical low-rank gradient compression for
/// distributed optimization", 2019, with error feedback and warm start. A parameter (n, ...) is treated as a
/// matrix of n rows. For an (n, m) matrix, rank * (n + m) numbers are sent. One-dimensional parameters are
/// not compressed.
///
/// Every shard is compressed separately and keeps its own compression error, so that the mean has the same
/// bits at any world size. A rank therefore keeps a copy of the gradient for each of its shards. If no shard
/// uses a parameter in a step, part of the parameter's error is lost. If gradients are not finite, all errors
/// are lost. Errors are not rescaled when a GradScaler changes its scale. Steps of several passes are
/// refused.
class PowerSgd final : public CommHook {
 public:
  /// Throws Error(kUsage) for a rank below 1.
  explicit PowerSgd(PowerSgdOptions options);
  void attach(const std::vector<NamedTensor>& parameters, int shards, ShardRange range) override;
  void reduce(GradientBucket& bucket) override;
  void forget() override;
  /// Returns two tensors for each matrix. "<parameter>.q" (rank, m) is the same on all ranks.
  /// "<parameter>.error" has the shape (shards, n, m), and each rank holds the part of its shards.
  std::vector<StateTensor> state() const override;

 private:
  struct Matrix {
    std::int64_t rows = 0, columns = 0, rank = 0;
    Tensor q;      ///< (rank, columns)
    Tensor error;  ///< (shards of this rank, rows, columns)
  };
  /// A matrix of a bucket, with the offsets of its gradient, p and q in the vectors that are sent.
  struct Place {
    const Matrix* matrix;
    std::int64_t gradient, p, q;
  };
  struct Exchange;

  /// Returns the initial q of a matrix.
  Tensor first_q(const std::string& parameter, const Matrix& matrix, Device device) const;
  void sum_others(GradientBucket& bucket) const;
  static void project(const Exchange& x, const std::vector<Tensor>& parts);
  static void project_back(const Exchange& x);
  static void decompress(const Exchange& x, const Tensor& mean);

  const PowerSgdOptions options_;
  int shards_ = 0;
  ShardRange range_;
  std::map<std::string, Matrix> matrices_;  ///< the key is the parameter's name
};

}  // namespace trireme
