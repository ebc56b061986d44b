// The part of the reducer that gives each rank a share of the parameters to update.
#include <algorithm>
#include <atomic>
#include <cstring>

#include "distributed/comm/backoff.h"
#include "distributed/ddp/reducer.h"
#include "kernels/table.h"

namespace trireme {

namespace {

/// Counts the buckets whose new values are here.
struct Arrivals {
  std::atomic<std::size_t> count{0};
  Event all;
};

/// New values of a bucket's parameters on their way here.
class UpdatesUnderWay final : public Filling {
 public:
  UpdatesUnderWay(std::shared_ptr<const Arrivals> arrivals, std::size_t number,
                  std::shared_ptr<std::chrono::nanoseconds> waited)
      : arrivals_(std::move(arrivals)), number_(number), waited_(std::move(waited)) {}
  void wait() override {
    const auto begin = std::chrono::steady_clock::now();
    // All are there, or have failed, when the event is done: that wait has a deadline.
    for (Backoff backoff; arrivals_->count.load(std::memory_order_acquire) <= number_;) {
      if (arrivals_->all.done()) arrivals_->all.wait();
      backoff.pause();
    }
    *waited_ += std::chrono::steady_clock::now() - begin;
  }

 private:
  const std::shared_ptr<const Arrivals> arrivals_;
  const std::size_t number_;
  const std::shared_ptr<std::chrono::nanoseconds> waited_;
};

/// Values of a parameter that is updated, but not sent yet.
class UpdatesHeldBack final : public Filling {
 public:
  explicit UpdatesHeldBack(std::string parameter) : parameter_(std::move(parameter)) {}
  void wait() override {
    fail(ExitCode::kUsage,
         "data parallel: {} is read after its update, but before all optimizers of its model have made their "
         "step; with --zero 1 each rank has its share of the new values only until then",
         parameter_);
  }

 private:
  const std::string parameter_;
};

/// Elements of one vector to go to another.
struct Copy {
  View to, from;
};

void run(const KernelTable& kernels, const std::vector<Copy>& copies) {
  for (const Copy& copy : copies)
    if (copy.to.numel() > 0) kernels.copy(copy.to, copy.from);
}

Tensor elements(const Tensor& t, std::int64_t first, std::int64_t count) {
  return t.alias({count}, {1}, t.offset() + first);
}

}  // namespace

std::optional<Share> Reducer::share_of(std::size_t index, int rank) const {
  const std::int64_t count = parameters_[index].tensor.numel();
  if (!options_.zero || count == 0) return {};
  const auto [bucket, slot] = places_[index];
  const auto r = static_cast<std::size_t>(rank);
  const auto offset = static_cast<std::int64_t>(buckets_[bucket].plan.offsets[slot]);
  const auto within = [&](std::size_t cut) {
    return std::clamp<std::int64_t>(static_cast<std::int64_t>(cut) - offset, 0, count);
  };
  const std::int64_t first = within(buckets_[bucket].cuts[r]);
  return Share{first, within(buckets_[bucket].cuts[r + 1]) - first};
}

Tensor Reducer::gradient_share(std::size_t index) const {
  if (!used_[index]) return {};
  const auto [bucket, slot] = places_[index];
  if (buckets_[bucket].is_shared)
    fail(ExitCode::kUsage,
         "data parallel: the gradient of {} is asked for after the step that used it; with --zero 1 its "
         "memory "
         "has the new parameters then",
         parameters_[index].name);
  const Share share = share_of(index).value_or(Share{});
  return elements(buckets_[bucket].sum->result(),
                  static_cast<std::int64_t>(buckets_[bucket].plan.offsets[slot]) + share.first, share.count);
}

/// Which parameters any rank has used, and the first number of any rank's share that is not finite.
Reducer::Bad Reducer::tell_use(Bad bad) {
  const std::size_t size = sizeof bad + used_.size();
  std::vector<std::byte> told(size * static_cast<std::size_t>(comm_.size()));
  std::vector<std::span<std::byte>> slices;
  for (int rank = 0; rank < comm_.size(); ++rank)
    slices.push_back(std::span(told).subspan(static_cast<std::size_t>(rank) * size, size));
  const std::span<std::byte> mine = slices[static_cast<std::size_t>(comm_.rank())];
  std::memcpy(mine.data(), &bad, sizeof bad);
  for (std::size_t i = 0; i < used_.size(); ++i)
    mine[sizeof bad + i] = static_cast<std::byte>(used_[i] ? 1 : 0);
  comm_.host().all_gather(slices, "which gradients there are").wait();
  for (const std::span<std::byte> said : slices) {
    Bad theirs;
    std::memcpy(&theirs, said.data(), sizeof theirs);
    const bool is_first =
        bad.bucket < 0 || std::pair(theirs.bucket, theirs.element) < std::pair(bad.bucket, bad.element);
    if (theirs.bucket >= 0 && is_first) bad = theirs;
    for (std::size_t i = 0; i < used_.size(); ++i)
      used_[i] = used_[i] || said[sizeof bad + i] != std::byte{0};
  }
  return bad;
}

void Reducer::complete_squares(std::span<const std::size_t> parameters, std::span<double> chunks) {
  if (!options_.zero) return;
  /// Calls fn(first chunk, chunks) for what a rank has of each parameter.
  const auto for_shares = [&](int rank, const auto& fn) {
    std::size_t at = 0;
    for (const std::size_t index : parameters) {
      const Share share = share_of(index, rank).value_or(Share{});
      fn(at + static_cast<std::size_t>(share.first / kSquaresChunk),
         static_cast<std::size_t>(squares_chunks(share.count)));
      at += static_cast<std::size_t>(squares_chunks(parameters_[index].tensor.numel()));
    }
  };
  std::vector<std::vector<double>> packed(static_cast<std::size_t>(comm_.size()));
  std::vector<std::span<std::byte>> slices;
  for (int rank = 0; rank < comm_.size(); ++rank) {
    std::vector<double>& own = packed[static_cast<std::size_t>(rank)];
    for_shares(rank, [&](std::size_t first, std::size_t count) {
      own.insert(own.end(), chunks.begin() + static_cast<std::ptrdiff_t>(first),
                 chunks.begin() + static_cast<std::ptrdiff_t>(first + count));
    });
    slices.push_back(std::as_writable_bytes(std::span(own)));
  }
  comm_.host().all_gather(slices, "squares of shares").wait();
  for (int rank = 0; rank < comm_.size(); ++rank) {
    const double* from = packed[static_cast<std::size_t>(rank)].data();
    for_shares(rank, [&](std::size_t first, std::size_t count) {
      std::copy_n(from, count, chunks.data() + first);
      from += count;
    });
  }
}

void Reducer::share_updates(std::span<const std::size_t> parameters) {
  if (!options_.zero) return;
  for (const std::size_t index : parameters) {
    updated_[index] = true;
    parameters_[index].tensor.impl()->storage->filling = make_ref<UpdatesHeldBack>(parameters_[index].name);
  }
  // What backward reaches last, forward needs first.
  std::vector<Bucket*> complete;
  for (auto bucket = buckets_.rbegin(); bucket != buckets_.rend(); ++bucket) {
    const auto is_done = [&](std::size_t index) { return updated_[index] || !used_[index]; };
    const auto is_new = [&](std::size_t index) { return bool{updated_[index]}; };
    if (!bucket->is_shared && std::ranges::all_of(bucket->plan.tensors, is_done) &&
        std::ranges::any_of(bucket->plan.tensors, is_new))
      complete.push_back(&*bucket);
  }
  share(std::move(complete));
}

void Reducer::share_all_updates() {
  std::vector<Bucket*> left;
  for (auto bucket = buckets_.rbegin(); bucket != buckets_.rend(); ++bucket)
    if (std::ranges::any_of(bucket->plan.tensors, [&](std::size_t index) { return updated_[index]; }))
      left.push_back(&*bucket);
  share(std::move(left));
}

/// New values of a bucket's parameters.
struct Reducer::Updates {
  std::vector<Tensor> parameters;
  std::vector<Copy> out, in;  ///< this rank's to the memory of the sum, others' from there
};

Reducer::Updates Reducer::updates_of(Bucket& bucket) {
  bucket.is_shared = true;
  Updates updates;
  const Tensor& sum = bucket.sum->result();
  for (std::size_t slot = 0; slot < bucket.plan.tensors.size(); ++slot) {
    const std::size_t index = bucket.plan.tensors[slot];
    if (!updated_[index]) continue;
    updated_[index] = false;
    const Tensor& p = updates.parameters.emplace_back(parameters_[index].tensor);
    p.impl()->storage->filling = nullptr;
    const auto share = share_of(index);
    if (!share) continue;
    const auto offset = static_cast<std::int64_t>(bucket.plan.offsets[slot]);
    const auto [first, count] = *share;
    const std::int64_t end = first + count, rest = p.numel() - end;
    updates.out.push_back({elements(sum, offset + first, count).view(), elements(p, first, count).view()});
    updates.in.push_back({elements(p, 0, first).view(), elements(sum, offset, first).view()});
    updates.in.push_back({elements(p, end, rest).view(), elements(sum, offset + end, rest).view()});
  }
  return updates;
}

/// Through the memory of the buckets' sums, whose gradients have done their work.
void Reducer::share(std::vector<Bucket*> buckets) {
  if (buckets.empty()) return;
  const KernelTable& kernels = kernels_of(comm_.device());
  const auto arrivals = std::make_shared<Arrivals>();
  const auto updates = std::make_shared<std::vector<Updates>>();
  std::vector<std::vector<std::span<std::byte>>> sets;
  for (Bucket* bucket : buckets) {
    updates->push_back(updates_of(*bucket));
    run(kernels, updates->back().out);
    sets.push_back(bucket->sum->result_slices());
  }
  const auto arrived = [&kernels, arrivals, updates](std::size_t k) {
    run(kernels, (*updates)[k].in);
    arrivals->count.store(k + 1, std::memory_order_release);
  };
  arrivals->all = comm_.all_gather_each(std::move(sets), arrived, "updates of parameters");
  for (std::size_t k = 0; k < buckets.size(); ++k) {
    buckets[k]->shared = arrivals->all;
    buckets[k]->sum->keep_until(arrivals->all);
    if (!comm_.device().is_cpu()) continue;
    const auto under_way = make_ref<UpdatesUnderWay>(arrivals, k, exposed_in_reads_);
    for (const Tensor& p : (*updates)[k].parameters) p.impl()->storage->filling = Ref<Filling>(under_way);
  }
  if (!comm_.device().is_cpu()) arrivals->all.wait();
}

}  // namespace trireme
