#include "distributed/comm/device_communicator.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <utility>

#include "distributed/comm/device_routes.h"
#include "distributed/comm/ordered_reduce.h"
#include "kernels/cuda/memory.h"
#include "kernels/table.h"

namespace trireme {

using cuda::Mark;
using namespace std::chrono_literals;

/// Why work on the GPU was ended: what it has left is no result.
class Failure {
 public:
  void set(std::string why) {
    const std::lock_guard lock(mutex_);
    if (why_.empty()) why_ = std::move(why);
  }
  /// Throws it, if there is one.
  void check() const {
    const std::lock_guard lock(mutex_);
    if (!why_.empty()) fail(ExitCode::kPeer, "{}", why_);
  }

 private:
  mutable std::mutex mutex_;
  std::string why_;
};

namespace {

std::string out_of_patience(const std::string& what, std::chrono::milliseconds patience) {
  return fmt::format("{}: the GPU did not finish within the patience of {:.1f} s", what,
                     std::chrono::duration<double>(patience).count());
}

/// Blocks until `is_done`; check() may throw, late() does.
void wait_for_gpu(const std::function<bool()>& is_done, std::chrono::milliseconds patience,
                  const std::function<void()>& check, const std::function<void()>& late) {
  const auto begin = std::chrono::steady_clock::now();
  // Short waits are the rule: the thread gives up its core only after a while.
  for (int asked = 0; !is_done(); ++asked) {
    if (asked < 1000) continue;
    check();
    if (std::chrono::steady_clock::now() - begin > patience) late();
    std::this_thread::sleep_for(20us);
  }
}

/// Done when the host has launched the work and the GPU has done it.
class DeviceEvent final : public Event::State {
 public:
  DeviceEvent(Event launched, std::shared_ptr<Mark> finished, std::shared_ptr<DeviceTransport> transport,
              std::shared_ptr<Failure> failure, std::chrono::milliseconds patience, std::string what)
      : launched_(std::move(launched)),
        finished_(std::move(finished)),
        transport_(std::move(transport)),
        failure_(std::move(failure)),
        patience_(patience),
        what_(std::move(what)) {}

  bool done() const override { return launched_.done() && cuda::is_done(finished_->get()); }
  void wait() const override {
    launched_.wait();
    const auto check = [this] {
      failure_->check();
      transport_->check();
    };
    const auto late = [this] {
      failure_->set(out_of_patience(what_, patience_));
      transport_->abort();
      failure_->check();
    };
    wait_for_gpu([this] { return cuda::is_done(finished_->get()); }, patience_, check, late);
    failure_->check();
  }
  void order() const override {
    launched_.wait();
    failure_->check();
    cuda::wait_for(cuda::stream(), finished_->get());
  }

 private:
  Event launched_;
  std::shared_ptr<Mark> finished_;
  std::shared_ptr<DeviceTransport> transport_;
  std::shared_ptr<Failure> failure_;
  std::chrono::milliseconds patience_;
  std::string what_;
};

}  // namespace

/// Which calls of a world of one are behind which places of its stream. A place costs the end of a graph, so
/// there is one only where somebody asked for it.
class Marks {
 public:
  std::uint64_t next_call() {
    const std::lock_guard lock(mutex_);
    return ++calls_;
  }
  /// All calls so far are before this place.
  void mark() {
    const std::lock_guard lock(mutex_);
    if (marked() < calls_) add();
  }
  bool is_done(std::uint64_t call) {
    const std::lock_guard lock(mutex_);
    if (marked() < call) add();
    while (done_ < call && cuda::is_done(places_.front().mark->get())) {
      done_ = places_.front().calls;
      places_.pop_front();
    }
    return done_ >= call;
  }

 private:
  struct Place {
    std::uint64_t calls;  ///< before it
    std::unique_ptr<Mark> mark;
  };
  std::uint64_t marked() const { return places_.empty() ? done_ : places_.back().calls; }
  void add() {
    auto mark = std::make_unique<Mark>();
    cuda::record(mark->get(), cuda::stream());
    places_.push_back({calls_, std::move(mark)});
  }

  std::mutex mutex_;
  std::uint64_t calls_ = 0, done_ = 0;
  std::deque<Place> places_;
};

namespace {

/// The event of a collective in a world of one rank, which runs on the caller's own stream.
class LoneEvent final : public Event::State {
 public:
  LoneEvent(std::shared_ptr<Marks> marks, std::chrono::milliseconds patience, std::string what)
      : marks_(std::move(marks)), call_(marks_->next_call()), patience_(patience), what_(std::move(what)) {}
  bool done() const override { return marks_->is_done(call_); }
  void wait() const override {
    wait_for_gpu([this] { return done(); }, patience_, [] {},
                 [this] { fail(ExitCode::kPeer, "{}", out_of_patience(what_, patience_)); });
  }
  void order() const override {}  // the same stream

 private:
  const std::shared_ptr<Marks> marks_;
  const std::uint64_t call_;
  const std::chrono::milliseconds patience_;
  const std::string what_;
};

/// The bytes of an all-to-all, by peer: `mine` is what this rank sends to it, `theirs` what it sends to this
/// rank. Ranks exchange these numbers before the data.
struct Lengths {
  explicit Lengths(std::size_t ranks) : mine(ranks), theirs(ranks) {}
  std::vector<std::uint64_t> mine, theirs;
};

}  // namespace

DeviceCommunicator::DeviceCommunicator(Communicator& host, std::shared_ptr<DeviceTransport> transport,
                                       std::chrono::milliseconds patience,
                                       std::unique_ptr<Communicator> owned)
    : owned_(std::move(owned)),
      host_(host),
      transport_(std::move(transport)),
      routes_(transport_ ? std::make_unique<DeviceRoutes>(*transport_, host.hosts(), host.rank()) : nullptr),
      patience_(patience),
      marks_(transport_ ? nullptr : std::make_shared<Marks>()),
      failure_(std::make_shared<Failure>()),
      stream_(transport_ ? (cuda::take_device(), cuda::make_stream()) : nullptr) {
  if (transport_) watch_ = std::jthread([this](const std::stop_token& stop) { watch(stop); });
}

DeviceCommunicator::~DeviceCommunicator() {
  try {
    launch([] {}, "the end").wait();
  } catch (const std::exception&) {
    // Whoever waits for results has been told. What is still under way must not keep the library from its
    // end.
    if (transport_) transport_->abort();
  }
}

Event DeviceCommunicator::launch_alone(const std::function<void()>& work, std::string what) {
  work();
  return Event(std::make_shared<LoneEvent>(marks_, patience_, std::move(what)));
}

void DeviceCommunicator::mark() {
  if (marks_) marks_->mark();
}

Event DeviceCommunicator::launch(std::function<void()> work, std::string label) {
  std::string what = fmt::format("rank {}: \"{}\" on {}", rank(), label, name_of(device()));
  if (!transport_) return launch_alone(work, std::move(what));
  const auto before = std::make_shared<Mark>(), finished = std::make_shared<Mark>();
  cuda::record(before->get(), cuda::stream());
  // What the work holds on to is memory that its kernels use after the host has launched them.
  const auto shared = std::make_shared<const std::function<void()>>(std::move(work));
  Event launched = host_.run(
      [this, shared, before, finished] {
        const cuda::StreamScope scope(stream_);
        cuda::wait_for(stream_, before->get());
        (*shared)();
        cuda::record(finished->get(), stream_);
      },
      std::move(label));
  const Event done(std::make_shared<DeviceEvent>(launched, finished, transport_, failure_, patience_, what));
  const std::lock_guard lock(kept_mutex_);
  while (!kept_.empty() && kept_.front().done.done()) kept_.pop_front();
  kept_.push_back({std::move(what), std::move(launched), done, before, finished, shared});
  return done;
}

/// Ends the GPU's work if its begin is over, by the caller's stream, for longer than the patience, or if the
/// host could not launch it.
void DeviceCommunicator::watch(const std::stop_token& stop) {
  cuda::take_device();
  std::shared_ptr<Mark> oldest;
  auto since = std::chrono::steady_clock::now();
  const auto complaint = [&]() -> std::string {
    const std::lock_guard lock(kept_mutex_);
    const auto first = std::ranges::find_if(kept_, [](const Kept& kept) { return !kept.done.done(); });
    if (first == kept_.end() || !first->launched.done()) return "";
    try {
      first->launched.wait();
    } catch (const std::exception& error) {
      return error.what();
    }
    if (!cuda::is_done(first->before->get())) return "";
    const auto now = std::chrono::steady_clock::now();
    if (oldest != first->finished) oldest = first->finished, since = now;
    return now - since > patience_ ? out_of_patience(first->what, patience_) : "";
  };
  const auto pause = std::clamp<std::chrono::milliseconds>(patience_ / 20, 1ms, 100ms);
  std::mutex mutex;
  std::condition_variable_any stopped;
  std::unique_lock lock(mutex);
  while (!stopped.wait_for(lock, stop, pause, [&] { return stop.stop_requested(); })) {
    try {
      if (const std::string why = complaint(); !why.empty()) {
        failure_->set(why);
        return transport_->abort();
      }
    } catch (const std::exception&) {
      return;  // the GPU has failed, which every call says
    }
  }
}

Event DeviceCommunicator::all_to_all(std::span<const ConstBytes> sends, std::span<const Bytes> recvs,
                                     std::string label) {
  const auto ranks = static_cast<std::size_t>(size()), self = static_cast<std::size_t>(rank());
  TRIREME_CHECK(sends.size() == ranks && recvs.size() == ranks && sends[self].size() == recvs[self].size(),
                "all_to_all of \"{}\": needs one buffer per rank ({}), got {} to send and {} to receive",
                label, ranks, sends.size(), recvs.size());
  const ConstBytes own = sends[self];
  const Bytes to = recvs[self];
  if (!own.empty() && own.data() != to.data())
    launch([=] { cuda::copy_on_device(to.data(), own.data(), own.size(), cuda::stream()); }, label);
  if (!transport_) return launch([] {}, std::move(label));
  const auto lengths = std::make_shared<Lengths>(ranks);
  std::vector<DeviceTransport::Send> from;
  std::vector<DeviceTransport::Recv> into;
  std::vector<ConstBytes> told;
  std::vector<Bytes> heard;
  for (std::size_t r = 0; r < ranks; ++r) {
    lengths->mine[r] = sends[r].size();
    told.push_back(std::as_bytes(std::span(&lengths->mine[r], 1)));
    heard.push_back(std::as_writable_bytes(std::span(&lengths->theirs[r], 1)));
    if (r == self) continue;
    from.push_back({static_cast<int>(r), sends[r]});
    into.push_back({static_cast<int>(r), recvs[r]});
  }
  host_.all_to_all(told, heard, label);
  return launch(
      [this, lengths, from = std::move(from), into = std::move(into), label] {
        for (const auto& [peer, room] : into) {
          const std::uint64_t comes = lengths->theirs[static_cast<std::size_t>(peer)];
          if (comes != room.size())
            fail(ExitCode::kPeer, "rank {}: \"{}\": rank {} sends {} bytes, {} are expected", rank(), label,
                 peer, comes, room.size());
        }
        transport_->exchange(from, into, stream_);
      },
      label);
}

Event DeviceCommunicator::all_gather(std::span<const Bytes> slices, std::string label) {
  TRIREME_CHECK(std::ssize(slices) == size(), "all_gather of \"{}\": needs one slice per rank ({}), got {}",
                label, size(), slices.size());
  if (!transport_) return launch([] {}, std::move(label));
  std::vector<std::size_t> bytes;
  for (const Bytes slice : slices) bytes.push_back(slice.size());
  host_.barrier(fmt::format("{} (slices of {} bytes)", label, fmt::join(bytes, ", ")));
  return launch(
      [this, all = std::vector<Bytes>(slices.begin(), slices.end())] { routes_->gather(all, stream_); },
      std::move(label));
}

Event DeviceCommunicator::sum(OrderedSum sum, std::string label) {
  if (!transport_)
    return launch(
        [&] {
          const View out{sum.out, sum.dtype, 1, {static_cast<std::int64_t>(sum.count)}, {1}};
          kernels_of(device()).tree_sum(out, maximal_subtrees(sum.shards, {0, sum.shards}), sum.partials,
                                        sum.shards, sum.scale);
        },
        std::move(label));
  if (!plan_ || plan_->shards != sum.shards)
    plan_ = std::make_shared<const HostPlan>(routes_->plan(sum.shards));
  // All that decides who sends what, so nothing more has to be said about it.
  std::string agreed = fmt::format("{} (sum of {} {} over {} shards times {}, {}cut at {})", label, sum.count,
                                   name_of(sum.dtype), sum.shards, sum.scale,
                                   sum.own_slice_only ? "own slices " : "", fmt::join(sum.cuts, ", "));
  // Before the agreement: whoever has no memory for it says so to peers that do not wait on a GPU yet.
  const auto work = [&] {
    const cuda::StreamScope scope(stream_);  // which alone uses that memory
    return std::make_shared<DeviceSum>(*routes_, plan_, std::move(sum));
  }();
  host_.barrier(std::move(agreed));
  return launch([this, work] { work->run(stream_); }, std::move(label));
}

Event DeviceCommunicator::all_reduce_fastest(Bytes data, DType dtype, std::string label) {
  if (!transport_) return launch([] {}, std::move(label));
  host_.barrier(fmt::format("{} (sum of {} bytes of {})", label, data.size(), name_of(dtype)));
  return launch([=, this] { transport_->all_reduce(data, dtype, stream_); }, std::move(label));
}

Event DeviceCommunicator::broadcast(Bytes data, int root, std::string label) {
  TRIREME_CHECK(root >= 0 && root < size(), "broadcast of \"{}\": root {} is not a rank of 0..{}", label,
                root, size() - 1);
  if (!transport_) return launch([] {}, std::move(label));
  host_.barrier(fmt::format("{} ({} bytes of rank {})", label, data.size(), root));
  return launch([=, this] { transport_->broadcast(data, root, stream_); }, std::move(label));
}

Event DeviceCommunicator::barrier(std::string label) {
  if (transport_) host_.barrier(label);
  return launch([] {}, std::move(label));
}

Event DeviceCommunicator::run(std::function<void()> fn, std::string label) {
  return launch(std::move(fn), std::move(label));
}

std::unique_ptr<Communicator> DeviceCommunicator::split(int color) {
  auto host = host_.split(color);
  if (!host) return nullptr;
  Communicator& group = *host;
  return std::make_unique<DeviceCommunicator>(
      group, group.size() > 1 ? make_nccl_transport(group, patience_) : nullptr, patience_, std::move(host));
}

void DeviceCommunicator::abort(const std::string& reason) {
  host_.abort(reason);
  if (transport_) transport_->abort();
}

void take_gpu(int rank, int local_rank, int ranks_here, bool share) {
  const int gpus = cuda::device_count();
  if (gpus == 0) cuda::take_device();  // which says why there is none
  if (ranks_here > gpus && !share)
    fail(ExitCode::kUsage,
         "--device cuda: {} ranks on this host, but {} GPU{}; start at most {} here, or use --share-gpu for "
         "a test",
         ranks_here, gpus, gpus == 1 ? "" : "s", gpus);
  // NCCL takes ranks of one GPU only for such of different hosts.
  if (ranks_here > gpus) setenv("NCCL_HOSTID", fmt::format("trireme-rank-{}", rank).c_str(), 0);
  cuda::choose_device(local_rank % gpus);
}

std::unique_ptr<Communicator> make_device_communicator(Communicator& host,
                                                       std::chrono::milliseconds patience) {
  return std::make_unique<DeviceCommunicator>(
      host, host.size() > 1 ? make_nccl_transport(host, patience) : nullptr, patience);
}

}  // namespace trireme
