// Steps of a traced run as they would be on other numbers of ranks over another network.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "launcher/cost_model.h"
#include "launcher/step_profile.h"

namespace trireme {

/// Seconds that a sum of so many bytes takes.
using SumCost = std::function<double(double bytes)>;

/// How much longer than usual ranks compute, in each step: as traced, where all of the trace's ranks take
/// part each as in one of its steps, and more ranks each as some rank in some step; or, without a trace's
/// factors, exp(spread z), z normal. A pure function of seed, step and rank.
struct Stragglers {
  double spread = 0;
  std::uint64_t seed = 1;
  std::vector<std::vector<double>> traced;  ///< by step and rank
  double factor(int step, int rank, int ranks) const;
};

/// Milliseconds a step, the median over simulated steps.
struct Simulated {
  double step_ms = 0;
  double compute_ms = 0;    ///< of a rank by itself
  double straggler_ms = 0;  ///< more, if communication cost nothing
  double exposed_ms = 0;    ///< more, because it costs something
  double comm_ms = 0;       ///< all sums, hidden or not
  double efficiency() const { return compute_ms / step_ms; }
};

/// Each rank computes for itself; sums are made one after another, each from when all ranks have what it sums
/// and the one before is done; the next step begins when all sums are there and the optimizer has run.
Simulated simulate_steps(const StepProfile& profile, const std::vector<StepProfile::Bucket>& buckets,
                         int ranks, const Stragglers& stragglers, const SumCost& cost);

/// How gradients would be summed.
struct Plan {
  AllReduce algorithm = AllReduce::kOrdered;
  double bucket_mb = 0;  ///< 0: as traced
  bool narrow = false;   ///< in 16 bits
};

Simulated simulate_plan(const StepProfile& profile, const Plan& plan, const Cluster& cluster,
                        const Stragglers& stragglers);

/// What was found for a number of ranks.
struct Advice {
  AllReduce best = AllReduce::kOrdered;  ///< of the algorithms, with nothing else changed
  double best_efficiency = 0;
  std::string text;  ///< what to change to reach the efficiency that is asked for
};
Advice advise(const StepProfile& profile, const Plan& plan, const Cluster& cluster,
              const Stragglers& stragglers, double wanted_efficiency);

}  // namespace trireme
