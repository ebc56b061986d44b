// `trireme simulate`: predicts how fast a traced job runs on other numbers of ranks and another network.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "core/base/nearest.h"
#include "kernels/error.h"
#include "launcher/commands.h"
#include "launcher/flags.h"
#include "launcher/simulate_steps.h"

namespace trireme {

namespace {

constexpr int kMostRanks = 16384;

struct Asked {
  std::string trace, link = "10GbE", algorithm = "ordered", within, comm_hook = "none";
  std::vector<int> ranks{8, 64, 256, 1024};
  std::optional<int> ranks_per_host;
  std::optional<double> spread;
  double efficiency = 0.9, bucket_mb = 0, compute_scale = 1;
  std::uint64_t seed = 1;
  bool narrow() const { return comm_hook != "none"; }
};

AllReduce algorithm_of(const std::string& name) {
  std::vector<std::string> names;
  for (const AllReduce algorithm : kAllReduces) {
    if (name_of(algorithm) == name) return algorithm;
    names.emplace_back(name_of(algorithm));
  }
  const std::string meant = nearest(name, names);
  fail(ExitCode::kUsage,
       "--algorithm '{}': there is none of that name{}; there are ring, tree, hierarchical, ordered", name,
       meant.empty() ? "" : fmt::format(" (did you mean '{}'?)", meant));
}

void check(const Asked& asked) {
  const auto in = [](const char* flag, double value, double least, double most) {
    if (!(value >= least && value <= most))
      fail(ExitCode::kUsage, "{} {:g}: must be from {:g} to {:g}", flag, value, least, most);
  };
  for (const int ranks : asked.ranks) in("--ranks", ranks, 1, kMostRanks);
  if (asked.ranks_per_host) in("--ranks-per-host", *asked.ranks_per_host, 1, kMostRanks);
  in("--efficiency", asked.efficiency, 0, 1);
  in("--bucket-mb", asked.bucket_mb, 0, 1e6);
  in("--compute-scale", asked.compute_scale, 1e-3, 1e3);
  if (asked.spread) in("--spread", *asked.spread, 0, 2);
}

/// Estimates the network of the traced run from the durations of its sums.
Cluster traced_network(const StepProfile& profile, int ranks_per_host) {
  Cluster cluster = cluster_of("10GbE");
  cluster.ranks = profile.ranks;
  cluster.ranks_per_host = ranks_per_host;
  if (cluster.hosts() == 1)
    fail(ExitCode::kUsage,
         "--link trace: the trace is of {} rank{} on one host: trace a run on several hosts, or name a link",
         profile.ranks, profile.ranks == 1 ? "" : "s");
  std::vector<MeasuredSum> sums;
  for (const auto& bucket : profile.buckets) sums.push_back({bucket.bytes, bucket.seconds});
  cluster.between = fit_link(sums, cluster);
  return cluster;
}

/// Multiplies the compute times of all ranks by `factor`.
void scale_compute(StepProfile& profile, double factor) {
  for (auto& bucket : profile.buckets) bucket.ready_ms *= factor;
  profile.backward_begin_ms *= factor;
  profile.compute_ms *= factor;
  profile.tail_ms *= factor;
}

/// Returns 0 for values that are printed as 0.00, so that "-0.00" does not appear.
double shown(double ms) { return std::abs(ms) < 0.005 ? 0.0 : ms; }

double gradient_bytes(const StepProfile& profile) {
  double bytes = 0;
  for (const auto& bucket : profile.buckets) bytes += bucket.is_gradients ? bucket.bytes : 0;
  return bytes;
}

void print_profile(const StepProfile& p, const Asked& asked, const Cluster& cluster) {
  const auto gradients = std::ranges::count_if(p.buckets, [](const auto& b) { return b.is_gradients; });
  fmt::print("traced: {} rank{}, {} steps of {:.2f} ms: compute {:.2f} ms, exposed communication {:.2f} ms\n",
             p.ranks, p.ranks == 1 ? "" : "s", p.steps, p.step_ms, p.compute_ms + p.tail_ms, p.exposed_ms);
  fmt::print("gradients: {:.2f} MB in {} bucket{}; stragglers {}\n", gradient_bytes(p) / 1e6, gradients,
             gradients == 1 ? "" : "s",
             asked.spread ? fmt::format("lognormal, spread {:g}", *asked.spread) : "as traced");
  fmt::print("link: {}, {:.1f}us,{:.1f}MB/s,{:.2f}us; {} rank{} a host; {} all-reduce{}\n\n", asked.link,
             1e6 * cluster.between.latency_s, cluster.between.bytes_per_s / 1e6,
             1e6 * cluster.between.message_s, cluster.ranks_per_host, cluster.ranks_per_host == 1 ? "" : "s",
             asked.algorithm, asked.narrow() ? " in 16 bits" : "");
}

int simulate(const Asked& asked) {
  check(asked);
  const Plan plan{algorithm_of(asked.algorithm), asked.bucket_mb, asked.narrow()};
  StepProfile profile = profile_of(read_traced_steps(asked.trace));
  Cluster cluster = asked.link == "trace" ? traced_network(profile, asked.ranks_per_host.value_or(1))
                                          : cluster_of(asked.link);
  if (asked.ranks_per_host) cluster.ranks_per_host = *asked.ranks_per_host;
  if (!asked.within.empty()) cluster.within = cluster_of(asked.within).between;
  scale_compute(profile, asked.compute_scale);
  Stragglers stragglers{asked.spread.value_or(0), asked.seed, {}};
  if (!asked.spread) stragglers.traced = profile.factors;
  print_profile(profile, asked, cluster);
  fmt::print("{:>6} {:>10} {:>10} {:>11} {:>10} {:>10} {:>7}  {:<20} to reach {:g}, change\n", "ranks",
             "step ms", "compute ms", "straggle ms", "comm ms", "exposed ms", "effic.", "best all-reduce",
             asked.efficiency);
  for (const int ranks : asked.ranks) {
    cluster.ranks = ranks;
    const Simulated s = simulate_plan(profile, plan, cluster, stragglers);
    const Advice advice = advise(profile, plan, cluster, stragglers, asked.efficiency);
    fmt::print("{:>6} {:>10.2f} {:>10.2f} {:>11.2f} {:>10.2f} {:>10.2f} {:>7.3f}  {:<20} {}\n", ranks,
               s.step_ms, s.compute_ms, shown(s.straggler_ms), s.comm_ms, shown(s.exposed_ms), s.efficiency(),
               fmt::format("{} ({:.3f})", name_of(advice.best), advice.best_efficiency), advice.text);
  }
  return 0;
}

}  // namespace

int simulate_main(int argc, char** argv) {
  CLI::App app(
      "Says how a traced job would scale: the measured times of one step, replayed on other numbers of ranks "
      "over another network. The work of a rank stays the same (weak scaling); efficiency is its compute "
      "over the "
      "step. Runs with --zero 1, --comm-hook powersgd or several passes a step cannot be traced for it.",
      "trireme simulate");
  Asked asked;
  const auto add = [&](const char* flag, auto& value, const char* type, const char* what) {
    return app.add_option(flag, value, what)->type_name(type);
  };
  add("--trace", asked.trace, "DIR", "The folder that the run's --trace named")->required();
  add("--ranks", asked.ranks, "N,N,...", "Numbers of ranks (default 8,64,256,1024)")->delimiter(',');
  add("--link", asked.link, "LINK",
      "Network between hosts: 10GbE, 100GbE, IB (200 Gbit/s), NVLink+IB (8 GPUs a host), trace (what the "
      "run's "
      "own sums tell), or latency,bandwidth[,processor time a message] such as 30us,10Gbit/s (default "
      "10GbE)");
  add("--within", asked.within, "LINK",
      "Network inside a host, in the same form (default shared memory; with NVLink+IB NVLink)");
  add("--ranks-per-host", asked.ranks_per_host, "N",
      "Ranks that share a host's link (default 1; with NVLink+IB 8)");
  add("--algorithm", asked.algorithm, "NAME",
      "ring, tree, hierarchical or ordered, which is Trireme's (default ordered)");
  add("--bucket-mb", asked.bucket_mb, "X", "Megabytes of gradients in a bucket (default as traced)");
  add("--comm-hook", asked.comm_hook, "NAME",
      "none, fp16 or bf16: gradients in 16 bits, where the trace has 32 (default none)")
      ->check(CLI::IsMember({"none", "fp16", "bf16"}).description(""));
  add("--spread", asked.spread, "X",
      "Spread of the ranks' compute times: lognormal, the deviation of the logarithm (default: times as "
      "traced, "
      "drawn anew for each rank and step)");
  add("--compute-scale", asked.compute_scale, "X", "Times as long as traced (default 1)");
  add("--seed", asked.seed, "S", "Seed of the stragglers (default 1)");
  add("--efficiency", asked.efficiency, "X", "Target efficiency of the advice (default 0.9)");
  if (!parse_flags(app, argc, argv)) return 0;
  return simulate(asked);
}

}  // namespace trireme
