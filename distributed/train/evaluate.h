// Measuring a classifier on a data set, the work shared by all ranks.
#pragma once

#include "distributed/train/job.h"

namespace trireme {

struct Evaluation {
  double loss = 0;      ///< mean cross entropy
  double accuracy = 0;  ///< 0 to 1
  std::int64_t samples = 0;
};

/// Runs the model in evaluation mode over the whole data set, in batches of `batch`; collective. Results are
/// the same bits at any world size: batches have fixed places, and their figures are added in order.
Evaluation evaluate(Job& job, nn::Module& model, const Dataset& dataset, std::int64_t batch = 250);

}  // namespace trireme
