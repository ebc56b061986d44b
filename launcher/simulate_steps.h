// Simulates the steps of a traced run on other numbers of ranks and over another network.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "launcher/cost_model.h"
#include "launcher/step_profile.h"

namespace trireme {

/// Returns the seconds that an all-reduce of `bytes` bytes takes.
using SumCost = std::function<double(double bytes)>;

/// Tells how much slower than usual each rank computes in each step. Without traced factors, the factor is
/// exp(spread z) with z normal. With them, and with as many ranks as in the trace, each step repeats a traced
/// step. With another number of ranks, each rank takes the factor of a random rank in a random traced step.
struct Stragglers {
  double spread = 0;
  std::uint64_t seed = 1;
  std::vector<std::vector<double>> traced;  ///< factors of the trace, indexed [step][rank]; may be empty
  /// Returns the factor of the compute time of `rank` out of `ranks` in `step`, a pure function of its
  /// arguments, the seed and the members.
  double factor(int step, int rank, int ranks) const;
};

/// The parts of a simulated step in milliseconds. step_ms is the median over the simulated steps and the sum
/// of compute_ms, straggler_ms and exposed_ms.
struct Simulated {
  double step_ms = 0;
  double compute_ms = 0;    ///< compute time of a rank that waits for no other
  double straggler_ms = 0;  ///< time added by waiting for slower ranks, with free communication
  double exposed_ms = 0;    ///< time added by the cost of communication
  double comm_ms = 0;       ///< total time of all sums, hidden or not
  double efficiency() const { return compute_ms / step_ms; }
};

/// Simulates steps. Ranks compute independently. Sums run one after another: a sum begins when every rank has
/// its input and the previous sum is done. A rank begins its next step when all sums are done and its
/// optimizer has run.
Simulated simulate_steps(const StepProfile& profile, const std::vector<StepProfile::Bucket>& buckets,
                         int ranks, const Stragglers& stragglers, const SumCost& cost);

/// How gradients are summed in a simulation.
struct Plan {
  AllReduce algorithm = AllReduce::kOrdered;
  double bucket_mb = 0;  ///< largest size of a bucket in MiB; 0: the traced buckets
  bool narrow = false;   ///< send 16-bit numbers, half of the traced bytes
};

/// Simulates the traced steps with this plan on this cluster.

Simulated simulate_plan(const StepProfile& profile, const Plan& plan, const Cluster& cluster,
                        const Stragglers& stragglers);

/// The advice of the simulation for one number of ranks.
struct Advice {
  AllReduce best = AllReduce::kOrdered;  ///< the most efficient algorithm, with nothing else changed
  double best_efficiency = 0;
  std::string text;  ///< changes with which the job reaches the wanted efficiency
};
/// Searches for the smallest change of `plan` that reaches `wanted_efficiency`.
Advice advise(const StepProfile& profile, const Plan& plan, const Cluster& cluster,
              const Stragglers& stragglers, double wanted_efficiency);

}  // namespace trireme
