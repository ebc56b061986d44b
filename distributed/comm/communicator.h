// The collectives that ranks share, as a queue per communicator.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/device.h"
#include "kernels/dtype.h"
#include "kernels/error.h"

namespace trireme {

/// A place in a communicator's queue. Cheap to copy. A default-made Event is done. Any thread may ask.
class Event {
 public:
  /// What a backend keeps behind an event: a flag and a condition variable, or a mark on a device's stream.
  struct State {
    virtual ~State() = default;
    virtual bool done() const = 0;
    virtual void wait() const = 0;
    virtual void order() const { wait(); }
  };

  Event() = default;
  explicit Event(std::shared_ptr<State> state) : state_(std::move(state)) {}
  /// True once the work is over, well or badly, and its buffers are no longer touched.
  bool done() const { return !state_ || state_->done(); }
  /// Blocks until the work before it is done; throws what that work threw (again at each call).
  /// It ends by itself, because every wait for a peer has a deadline.
  void wait() const {
    if (state_) state_->wait();
  }
  /// What this thread gives the event's device from now on comes after it. Blocks only until the work has
  /// been given to the device, or as wait() where that is the host.
  void order() const {
    if (state_) state_->order();
  }

 private:
  std::shared_ptr<State> state_;
};

/// A rank's part of a sum over shards: see ordered_sum() in ordered_reduce.h.
struct OrderedSum {
  int shards = 0;
  std::vector<const void*> partials;
  DType dtype = DType::kFloat32;
  std::size_t count = 0;
  float scale = 1;
  void* out = nullptr;
  /// Rank r sums elements [cuts[r], cuts[r + 1]); empty: about as many as any other.
  std::vector<std::size_t> cuts;
  /// A reduce-scatter: of `out` each rank gets the elements it sums; the others are left or overwritten.
  bool own_slice_only = false;
};

/// Collectives over ranks 0..size()-1.
///
/// Every call is enqueued on the communicator's own stream (one thread on CPUs; a GPU's that is alone: the
/// caller's stream, where run() calls its function there and then) and does not wait for it; calls run in
/// call order, and all ranks must make the same calls in the same order. Buffers must stay alive and
/// untouched until the returned Event is done, also when an exception unwinds their owner: abort(), then
/// wait. `label` names the data in error messages ("bucket 4 (layer1.0.conv1.weight ...)") and in traces, and
/// must be the same on all ranks.
///
/// Before data moves the ranks agree on sequence number, operation, root, sizes and label; a mismatch
/// is an Error(kPeer) on every rank. A wait for a peer longer than the patience given at construction is
/// an Error(kPeer) too. After the first error, be it a peer's, every later call fails with the same error.
///
/// One thread at a time may call; which one is the caller's business. abort() may come from any thread.
/// Destruction waits until the queue is empty.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual std::string_view backend() const = 0;  ///< "local", "mpi", ...
  /// By rank: the lowest rank of its host.
  virtual std::vector<int> hosts() const = 0;
  /// Where the buffers of collectives lie.
  virtual Device device() const { return kCpu; }
  /// The same ranks, for what the host itself reads and writes.
  virtual Communicator& host() { return *this; }
  /// Memory there for buffers that are used again and again, uninitialized: other ranks of this host may see
  /// it, and then need no copies. At a multiple of 64 bytes. Any thread may call, and let go of it at any
  /// time.
  virtual std::shared_ptr<std::byte> allocate(std::size_t bytes);

  /// Sends sends[r] to rank r and receives recvs[r] from rank r, for all r (own slot: a copy).
  virtual Event all_to_all(std::span<const std::span<const std::byte>> sends,
                           std::span<const std::span<std::byte>> recvs, std::string label) = 0;
  /// slices[r] are disjoint pieces of memory; rank r's own slice is filled beforehand, all are filled after.
  virtual Event all_gather(std::span<const std::span<std::byte>> slices, std::string label) = 0;
  /// all_gather() of several sets of slices, as fast as they get through together. arrived(k) is called as by
  /// run(), in order, once set k is there. All ranks have the same sets.
  virtual Event all_gather_each(std::vector<std::vector<std::span<std::byte>>> sets,
                                std::function<void(std::size_t)> arrived, std::string label);
  /// Sum in place, of float32, bfloat16 or float16, by the library's own algorithm: bits are NOT promised to
  /// be equal at other world sizes.
  virtual Event all_reduce_fastest(std::span<std::byte> data, DType dtype, std::string label) = 0;
  /// As ordered_sum() describes it, which checks its arguments.
  virtual Event sum(OrderedSum sum, std::string label) = 0;
  virtual Event broadcast(std::span<std::byte> data, int root, std::string label) = 0;
  virtual Event barrier(std::string label) = 0;
  /// Runs a host function in queue order. On a GPU, its kernels run in the order of the collectives.
  virtual Event run(std::function<void()> fn, std::string label) = 0;
  /// Events of calls so far will be done without waiting for what this thread enqueues from now on: of a
  /// communicator whose queue is the thread's own stream, which cannot know where to look otherwise.
  virtual void mark() {}
  /// A communicator of the ranks that give the same color, in the order of their ranks here; null for a
  /// negative color. Collective over all ranks, and blocking. It has a queue, a sequence of calls and
  /// failures of its own, and must not outlive this one.
  virtual std::unique_ptr<Communicator> split(int color) = 0;
  /// Makes this rank's pending and later calls fail, and its peers' as soon as they notice. Never blocks.
  virtual void abort(const std::string& reason) = 0;
};

}  // namespace trireme
