#include "launcher/simulate_steps.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <utility>

#include "kernels/error.h"
#include "kernels/rng.h"

namespace trireme {

namespace {

/// Returns a number of steps that is enough for a median and not too slow with many ranks.
int steps_to_simulate(int ranks) { return std::clamp((1 << 16) / ranks, 8, 64); }

constexpr std::array kBucketChoices = {0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 25.0, 50.0, 100.0};

double median_step_ms(const StepProfile& p, const std::vector<StepProfile::Bucket>& buckets, int ranks,
                      const Stragglers& stragglers, const std::vector<double>& costs_ms) {
  std::vector<double> begins(static_cast<std::size_t>(ranks), 0.0), factors(begins.size()), times;
  double end = 0;
  for (int step = 0; step < steps_to_simulate(ranks); ++step) {
    for (int rank = 0; rank < ranks; ++rank)
      factors[static_cast<std::size_t>(rank)] = stragglers.factor(step, rank, ranks);
    double summed = 0;
    for (std::size_t b = 0; b < buckets.size(); ++b) {
      double all_ready = 0;
      for (std::size_t rank = 0; rank < begins.size(); ++rank)
        all_ready = std::max(all_ready, begins[rank] + factors[rank] * buckets[b].ready_ms);
      summed = std::max(summed, all_ready) + costs_ms[b];
    }
    for (std::size_t rank = 0; rank < begins.size(); ++rank)
      begins[rank] =
          std::max(begins[rank] + factors[rank] * p.compute_ms, summed) + factors[rank] * p.tail_ms;
    const double all_done = *std::ranges::max_element(begins);
    times.push_back(all_done - std::exchange(end, all_done));
  }
  std::ranges::nth_element(times, times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2));
  return times[times.size() / 2];
}

std::string flags_of(const Plan& plan, const Plan& now) {
  std::string text;
  const auto add = [&](const std::string& flag) { text += (text.empty() ? "" : ", ") + flag; };
  if (plan.algorithm != now.algorithm) add(fmt::format("{} all-reduce", name_of(plan.algorithm)));
  if (plan.bucket_mb != now.bucket_mb) add(fmt::format("--bucket-mb {:g}", plan.bucket_mb));
  if (plan.narrow != now.narrow) add("--comm-hook bf16");
  return text;
}

/// Finds the most efficient plan among those that differ from `now` in the bucket size (`buckets`), in
/// sending 16-bit numbers (`narrow`), or in the all-reduce (`algorithms`).
struct Search {
  const StepProfile& profile;
  const Plan& now;
  const Cluster& cluster;
  const Stragglers& stragglers;

  double efficiency(const Plan& plan) const {
    return simulate_plan(profile, plan, cluster, stragglers).efficiency();
  }
  std::pair<Plan, double> best(bool buckets, bool narrow, bool algorithms) const {
    std::pair<Plan, double> found{now, 0};
    for (const AllReduce algorithm : kAllReduces) {
      if (!algorithms && algorithm != now.algorithm) continue;
      std::vector<double> sizes{now.bucket_mb};
      if (buckets) sizes.insert(sizes.end(), kBucketChoices.begin(), kBucketChoices.end());
      for (const double size : sizes) {
        const Plan plan{algorithm, size, now.narrow || narrow};
        if (const double reached = efficiency(plan); reached > found.second + 1e-6) found = {plan, reached};
      }
    }
    return found;
  }
};

}  // namespace

double Stragglers::factor(int step, int rank, int ranks) const {
  const auto bits = philox(random_key(seed, 0x737472, 0), static_cast<std::uint64_t>(step),
                           static_cast<std::uint64_t>(rank));
  if (!traced.empty()) {
    const auto traced_ranks = static_cast<int>(traced[0].size());
    const std::size_t row = ranks == traced_ranks
                                ? static_cast<std::size_t>(step) % traced.size()
                                : to_bounded(bits[0], static_cast<std::uint32_t>(traced.size()));
    return traced[row][ranks == traced_ranks ? static_cast<std::size_t>(rank)
                                             : to_bounded(bits[1], static_cast<std::uint32_t>(traced_ranks))];
  }
  // The Box-Muller transform. u is in (0, 1], because 0 has no logarithm.
  const double u = 1 - to_unit_double(bits[0], bits[1]), v = to_unit_double(bits[2], bits[3]);
  return std::exp(spread * std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v));
}

Simulated simulate_steps(const StepProfile& profile, const std::vector<StepProfile::Bucket>& buckets,
                         int ranks, const Stragglers& stragglers, const SumCost& cost) {
  std::vector<double> costs;
  Simulated s;
  for (const auto& bucket : buckets) {
    const double sum = ranks > 1 ? profile.start_ms + 1e3 * cost(bucket.bytes) : 0;
    s.comm_ms += sum;
    costs.push_back(sum + bucket.after_ms);
  }
  s.compute_ms = profile.compute_ms + profile.tail_ms;
  s.step_ms = median_step_ms(profile, buckets, ranks, stragglers, costs);
  const double free = median_step_ms(profile, buckets, ranks, stragglers, std::vector(buckets.size(), 0.0));
  s.straggler_ms = free - s.compute_ms;
  s.exposed_ms = s.step_ms - free;
  return s;
}

Simulated simulate_plan(const StepProfile& profile, const Plan& plan, const Cluster& cluster,
                        const Stragglers& stragglers) {
  const auto buckets =
      plan.bucket_mb > 0 ? cut_buckets(profile, plan.bucket_mb * (1 << 20)) : profile.buckets;
  return simulate_steps(profile, buckets, cluster.ranks, stragglers, [&](double bytes) {
    return all_reduce_seconds(plan.algorithm, plan.narrow ? bytes / 2 : bytes, cluster);
  });
}

Advice advise(const StepProfile& profile, const Plan& plan, const Cluster& cluster,
              const Stragglers& stragglers, double wanted) {
  const Search search{profile, plan, cluster, stragglers};
  Advice advice{plan.algorithm, search.efficiency(plan), ""};
  const double now = advice.best_efficiency;
  for (const AllReduce algorithm : kAllReduces) {
    const double reached = search.efficiency({algorithm, plan.bucket_mb, plan.narrow});
    if (reached > advice.best_efficiency + 1e-6) {
      advice.best = algorithm;
      advice.best_efficiency = reached;
    }
  }
  if (now >= wanted) {
    advice.text = "nothing";
    return advice;
  }
  const Simulated s = simulate_plan(profile, plan, cluster, stragglers);
  const double silent = s.compute_ms / (s.compute_ms + s.straggler_ms);
  if (silent < wanted) {
    advice.text = fmt::format("stragglers: {:.2f} at most, however fast the network", silent);
    return advice;
  }
  // Try the smallest changes first.
  std::pair<Plan, double> found;
  for (const auto& [buckets, narrow, algorithms] :
       {std::array{true, false, false}, std::array{false, true, false}, std::array{true, true, false},
        std::array{false, false, true}, std::array{true, false, true}, std::array{true, true, true}}) {
    found = search.best(buckets, narrow, algorithms);
    if (found.second >= wanted) {
      advice.text = fmt::format("{} -> {:.2f}", flags_of(found.first, plan), found.second);
      return advice;
    }
  }
  const std::string flags = flags_of(found.first, plan);
  advice.text = flags.empty() ? "more samples a rank"
                              : fmt::format("{} -> {:.2f}; then more samples a rank", flags, found.second);
  return advice;
}

}  // namespace trireme
