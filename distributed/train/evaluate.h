// Evaluates a model on a data set. All ranks share the work.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "distributed/train/job.h"

namespace trireme {

/// Adds up figures over a whole data set, in batches of `batch` and without recording; collective.
/// measure(batch, figures) writes the figures of one batch. The sums are the same bits at any world size:
/// batches have fixed places, and their figures are added in order.
std::vector<double> sum_over(Job& job, const Dataset& dataset, std::int64_t batch, std::size_t figures,
                             const std::function<void(const Batch&, std::span<double>)>& measure);

struct Evaluation {
  double loss = 0;      ///< mean cross entropy
  double accuracy = 0;  ///< 0 to 1
  std::int64_t samples = 0;
};

/// Evaluates a classifier of x with labels y, in evaluation mode. Collective: see sum_over().
Evaluation evaluate(Job& job, nn::Module& model, const Dataset& dataset, std::int64_t batch = 250);

}  // namespace trireme
