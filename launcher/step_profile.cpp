#include "launcher/step_profile.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/error.h"

namespace trireme {

namespace {

constexpr double kFirstBucketBytes = 1 << 20;  // the same limit as in distributed/ddp/reducer.cpp

/// The measurements of one step on one rank. The vectors have one element for each sum.
struct Measured {
  std::vector<StepProfile::Bucket> buckets;
  std::vector<double> enqueued_us, begins_us, ends_us;  // when a sum was enqueued, began and ended
  std::vector<double> free_us;  // when the communication thread had finished everything before the sum
  double backward_begin_ms = 0, compute_ms = 0, tail_ms = 0, step_ms = 0, exposed_ms = 0;
};

Measured measured(const TracedStep& step) {
  Measured m;
  double backward_end = step.begin_us, sums_end = step.begin_us;
  for (const TraceSpan& span : step.spans) {
    if (span.category == "compute" && span.name == "backward") {
      m.backward_begin_ms = (span.begin_us - step.begin_us) / 1e3;
      backward_end = std::max(backward_end, span.end_us);
    }
    if (span.category != "communication") continue;
    if (span.name.find("updates of parameters") != std::string::npos)
      fail(
          ExitCode::kData,
          "the traced run had --zero 1, whose gradients and parameters travel apart, which is not simulated; "
          "trace a run without");
    if (is_sum(span)) {
      const auto bytes = span.args.find("bytes");
      const std::string name = span.name.substr(span.name.find(' ') + 1);
      m.buckets.push_back({.name = name,
                           .bytes = bytes == span.args.end() ? 0 : bytes->second,
                           .ready_ms = (enqueued_us(span) - step.begin_us) / 1e3,
                           .is_gradients = name.starts_with("bucket ")});
      for (std::size_t i = 0; i + 1 < m.buckets.size() && m.buckets.back().is_gradients; ++i)
        if (m.buckets[i].name == name)
          fail(ExitCode::kData,
               "the traced run summed {} more than once a step (--comm-hook powersgd, or several passes), "
               "which is "
               "not simulated; trace a run without",
               name);
      m.enqueued_us.push_back(enqueued_us(span));
      m.begins_us.push_back(span.begin_us);
      m.ends_us.push_back(span.end_us);
      m.free_us.push_back(sums_end);
      backward_end = std::max(backward_end, enqueued_us(span));  // the sum of the loss is enqueued last
    } else if (!m.buckets.empty()) {
      m.buckets.back().after_ms += (span.end_us - span.begin_us) / 1e3;
    }
    sums_end = std::max(sums_end, span.end_us);
  }
  // Do not count communication that ends after the step.
  const double compute_end = std::min(std::max(backward_end, sums_end), step.end_us);
  m.compute_ms = std::max(1e-6, (backward_end - step.begin_us) / 1e3);  // positive, because it is a divisor
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

using Kept = std::vector<std::vector<Measured>>;  // indexed [rank][step], with the same steps of all ranks

/// Returns the mean over ranks of the median over steps of `get`.
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

/// Returns the seconds from when the last rank begins the bucket's sum to when the last rank has the result,
/// as the median over steps.
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

/// Returns the milliseconds from when all ranks could begin a sum to when all have begun it, as the median
/// over sums and steps.
double start_ms(const Kept& kept) {
  std::vector<double> times;
  for (std::size_t step = 0; step < kept[0].size(); ++step)
    for (std::size_t bucket = 0; bucket < kept[0][step].begins_us.size(); ++bucket) {
      double could = 0, did = 0;
      for (const auto& rank : kept) {
        could = std::max({could, rank[step].enqueued_us[bucket], rank[step].free_us[bucket]});
        did = std::max(did, rank[step].begins_us[bucket]);
      }
      times.push_back((did - could) / 1e3);
    }
  return std::max(0.0, median(std::move(times)));
}

Kept kept_steps(const std::vector<TracedRank>& ranks) {
  Kept all;
  std::size_t common = ranks[0].size();
  for (const TracedRank& rank : ranks) {
    auto& steps = all.emplace_back();
    for (const TracedStep& step : rank) steps.push_back(measured(step));
    common = std::min(common, steps.size());
  }
  // Use the steps that all ranks have: one rank may have been stopped a step earlier than the others.
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
    profile.buckets[b].after_ms = typical(kept, [&](const Measured& m) { return m.buckets[b].after_ms; });
    profile.buckets[b].seconds = sum_seconds(kept, b);
  }
  profile.backward_begin_ms = typical(kept, [](const Measured& m) { return m.backward_begin_ms; });
  profile.compute_ms = typical(kept, [](const Measured& m) { return m.compute_ms; });
  profile.tail_ms = typical(kept, [](const Measured& m) { return m.tail_ms; });
  profile.step_ms = typical(kept, [](const Measured& m) { return m.step_ms; });
  profile.exposed_ms = typical(kept, [](const Measured& m) { return m.exposed_ms; });
  profile.start_ms = start_ms(kept);
  profile.factors.resize(kept[0].size());
  for (const auto& steps : kept)
    for (std::size_t step = 0; step < steps.size(); ++step)
      profile.factors[step].push_back(steps[step].compute_ms / profile.compute_ms);
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
      if (cut.empty() || room() <= 0) cut.push_back({.name = fmt::format("bucket {}", cut.size())});
      const double taken = std::min(room(), bucket.bytes - done);
      done += taken;
      cut.back().bytes += taken;
      cut.back().after_ms += bucket.after_ms * taken / bucket.bytes;
      cut.back().ready_ms = before_ms + (bucket.ready_ms - before_ms) * done / bucket.bytes;
    }
    before_ms = std::max(before_ms, bucket.ready_ms);
  }
  cut.insert(cut.end(), others.begin(), others.end());
  return cut;
}

}  // namespace trireme
