#include "launcher/step_profile.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/error.h"

namespace trireme {

namespace {

constexpr double kFirstBucketBytes = 1 << 20;

/// One step of one rank.
struct Measured {
  std::vector<StepProfile::Bucket> buckets;
  std::vector<double> begins_us, ends_us;  // of the sums
  double backward_begin_ms = 0, compute_ms = 0, tail_ms = 0, step_ms = 0, exposed_ms = 0;
};

Measured measured(const TracedStep& step) {
  Measured m;
  double backward_end = step.begin_us, sums_end = step.begin_us;
  for (const TraceSpan& span : step.spans) {
    if (span.category == "compute" && span.name == "backward") {
      m.backward_begin_ms = (span.begin_us - step.begin_us) / 1e3;
      backward_end = span.end_us;
    }
    if (span.category == "communication") sums_end = std::max(sums_end, span.end_us);
    if (!is_sum(span)) continue;
    backward_end = std::max(backward_end, enqueued_us(span));  // the loss comes last
    const auto bytes = span.args.find("bytes");
    const std::string name = span.name.substr(span.name.find(' ') + 1);
    m.buckets.push_back({name, bytes == span.args.end() ? 0 : bytes->second,
                         (enqueued_us(span) - step.begin_us) / 1e3, 0, name.starts_with("bucket ")});
    m.begins_us.push_back(span.begin_us);
    m.ends_us.push_back(span.end_us);
  }
  // What ends after the step belongs to it no more.
  const double compute_end = std::min(std::max(backward_end, sums_end), step.end_us);
  m.compute_ms = (backward_end - step.begin_us) / 1e3;
  m.tail_ms = (step.end_us - compute_end) / 1e3;
  m.step_ms = (step.end_us - step.begin_us) / 1e3;
  m.exposed_ms = (compute_end - std::min(backward_end, compute_end)) / 1e3;
  return m;
}

bool alike(const Measured& a, const Measured& b) {
  return std::ranges::equal(a.buckets, b.buckets, [](const auto& x, const auto& y) {
    return x.name == y.name && x.bytes == y.bytes;
  });
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::ranges::nth_element(values, middle);
  return *middle;
}

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

using Kept = std::vector<std::vector<Measured>>;  // by rank, the same steps of each

/// Median over steps, mean over ranks.
template <class Get>
double typical(const Kept& kept, Get get) {
  std::vector<double> of_ranks;
  for (const auto& steps : kept) {
    std::vector<double> values;
    for (const Measured& m : steps) values.push_back(get(m));
    of_ranks.push_back(median(std::move(values)));
  }
  return mean(of_ranks);
}

/// From when the last rank came to when the last one had it; the median over steps.
double sum_seconds(const Kept& kept, std::size_t bucket) {
  std::vector<double> times;
  for (std::size_t step = 0; step < kept[0].size(); ++step) {
    double begin = kept[0][step].begins_us[bucket], end = kept[0][step].ends_us[bucket];
    for (const auto& rank : kept) {
      begin = std::max(begin, rank[step].begins_us[bucket]);
      end = std::max(end, rank[step].ends_us[bucket]);
    }
    times.push_back((end - begin) / 1e6);
  }
  return median(std::move(times));
}

double spread_of(const Kept& kept) {
  std::vector<double> logs;
  for (const auto& steps : kept)
    for (const Measured& m : steps) logs.push_back(std::log(std::max(m.compute_ms, 1e-6)));
  const double middle = mean(logs);
  double squares = 0;
  for (const double value : logs) squares += (value - middle) * (value - middle);
  return logs.size() < 2 ? 0 : std::sqrt(squares / static_cast<double>(logs.size() - 1));
}

Kept kept_steps(const std::vector<TracedRank>& ranks) {
  Kept all;
  std::size_t common = ranks[0].size();
  for (const TracedRank& rank : ranks) {
    auto& steps = all.emplace_back();
    for (const TracedStep& step : rank) steps.push_back(measured(step));
    common = std::min(common, steps.size());
  }
  // The same steps of all ranks; a rank may have been stopped one earlier.
  const Measured last = all[0][common - 1];
  if (last.buckets.empty())
    fail(
        ExitCode::kData,
        "the trace tells of no sum with its bytes in step {}: trace again with this version, on CPUs, on one "
        "rank or more",
        ranks[0][common - 1].step);
  Kept kept(all.size());
  for (std::size_t step = 0; step < common; ++step) {
    if (!std::ranges::all_of(all, [&](const auto& rank) { return alike(rank[step], last); })) continue;
    for (std::size_t rank = 0; rank < all.size(); ++rank) kept[rank].push_back(std::move(all[rank][step]));
  }
  if (kept[0].empty())
    fail(ExitCode::kData, "no step was made alike on all {} ranks: give the traces of one run", ranks.size());
  for (auto& steps : kept)
    if (steps.size() > 2) steps.erase(steps.begin());
  return kept;
}

}  // namespace

StepProfile profile_of(const std::vector<TracedRank>& ranks) {
  const Kept kept = kept_steps(ranks);
  StepProfile profile;
  profile.ranks = static_cast<int>(kept.size());
  profile.steps = static_cast<int>(kept[0].size());
  profile.buckets = kept[0][0].buckets;
  for (std::size_t b = 0; b < profile.buckets.size(); ++b) {
    profile.buckets[b].ready_ms = typical(kept, [&](const Measured& m) { return m.buckets[b].ready_ms; });
    profile.buckets[b].seconds = sum_seconds(kept, b);
  }
  profile.backward_begin_ms = typical(kept, [](const Measured& m) { return m.backward_begin_ms; });
  profile.compute_ms = typical(kept, [](const Measured& m) { return m.compute_ms; });
  profile.tail_ms = typical(kept, [](const Measured& m) { return m.tail_ms; });
  profile.step_ms = typical(kept, [](const Measured& m) { return m.step_ms; });
  profile.exposed_ms = typical(kept, [](const Measured& m) { return m.exposed_ms; });
  profile.spread = spread_of(kept);
  return profile;
}

std::vector<StepProfile::Bucket> cut_buckets(const StepProfile& profile, double most_bytes) {
  std::vector<StepProfile::Bucket> cut, others;
  const auto room = [&] {
    const double most = std::floor(cut.size() > 1 ? most_bytes : std::min(most_bytes, kFirstBucketBytes));
    return most - cut.back().bytes;
  };
  double before_ms = profile.backward_begin_ms;
  for (const StepProfile::Bucket& bucket : profile.buckets) {
    if (!bucket.is_gradients) {
      others.push_back(bucket);
      continue;
    }
    for (double done = 0; done < bucket.bytes;) {
      if (cut.empty() || room() <= 0) cut.push_back({fmt::format("bucket {}", cut.size()), 0, 0, 0, true});
      const double taken = std::min(room(), bucket.bytes - done);
      done += taken;
      cut.back().bytes += taken;
      cut.back().ready_ms = before_ms + (bucket.ready_ms - before_ms) * done / bucket.bytes;
    }
    before_ms = std::max(before_ms, bucket.ready_ms);
  }
  cut.insert(cut.end(), others.begin(), others.end());
  return cut;
}

}  // namespace trireme
