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

/// The completion of a call in a communicator's queue. It is cheap to copy, and any thread may use it. A
/// default-constructed Event is complete.
class Event {
 public:
  /// The backend's implementation of an event: a flag with a condition variable, or a CUDA event.
  struct State {
    virtual ~State() = default;
    virtual bool done() const = 0;
    virtual void wait() const = 0;
    virtual void order() const { wait(); }
  };

  Event() = default;
  explicit Event(std::shared_ptr<State> state) : state_(std::move(state)) {}
  /// Returns true once the call has completed or failed. Its buffers are not accessed any more then.
  bool done() const { return !state_ || state_->done(); }
  /// Blocks until the call has completed, and throws the call's error if it failed (again at each wait).
  /// The wait is bounded, because every wait for a peer has a deadline.
  void wait() const {
    if (state_) state_->wait();
  }
  /// Orders work that this thread enqueues later on the event's device after the call. On a GPU this blocks
  /// only until the call has been enqueued; on a CPU it is the same as wait().
  void order() const {
    if (state_) state_->order();
  }

 private:
  std::shared_ptr<State> state_;
};

/// One rank's arguments of a sum over shards. See ordered_sum() in ordered_reduce.h.
struct OrderedSum {
  int shards = 0;
  std::vector<const void*> partials;
  DType dtype = DType::kFloat32;
  std::size_t count = 0;
  float scale = 1;
  void* out = nullptr;
  /// Rank r sums elements [cuts[r], cuts[r + 1]). If empty, all ranks sum about as many elements.
  std::vector<std::size_t> cuts;
  /// If true, the sum is a reduce-scatter: each rank gets the elements of `out` that it sums, and the
  /// contents of the other elements are unspecified.
  bool own_slice_only = false;
};

/// Collectives over ranks 0..size()-1.
///
/// Every call is enqueued on the communicator's queue and returns without waiting for it. The queue is a
/// thread on CPUs and a stream on GPUs. A GPU communicator of one rank uses the caller's stream, and its
/// run() calls the function at once. Calls run in call order, and all ranks must make the same calls in the
/// same order. Buffers must stay alive and unmodified until the returned Event is complete. If an exception
/// destroys the owner of a buffer, the owner calls abort() and then waits. `label` names the data in error
/// messages, for example "bucket 4 (layer1.0.conv1.weight ...)", and in traces. It must be the same on all
/// ranks.
///
/// Before data is exchanged, the ranks compare sequence number, operation, root, sizes and label; a mismatch
/// is an Error(kPeer) on every rank. A wait for a peer that exceeds the patience given at construction is
/// an Error(kPeer), too. After the first error of any rank, every later call fails with the same error.
///
/// Only one thread at a time may make calls, but abort() may be called from any thread. The destructor waits
/// until the queue is empty.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual std::string_view backend() const = 0;  ///< "local", "mpi", ...
  /// Returns, for every rank, the lowest rank on the same node.
  virtual std::vector<int> hosts() const = 0;
  /// Returns the device on which the buffers of collectives are.
  virtual Device device() const { return kCpu; }
  /// Returns a communicator of the same ranks for buffers in CPU memory.
  virtual Communicator& host() { return *this; }
  /// Allocates uninitialized memory on device(), aligned to 64 bytes, for buffers that are used in many
  /// calls. Ranks of the same node may share it, which saves copies. Any thread may call this and release the
  /// memory.
  virtual std::shared_ptr<std::byte> allocate(std::size_t bytes);

  /// Sends sends[r] to rank r and receives recvs[r] from rank r, for all r. The rank's own part is copied.
  virtual Event all_to_all(std::span<const std::span<const std::byte>> sends,
                           std::span<const std::span<std::byte>> recvs, std::string label) = 0;
  /// Sends slices[rank()] to all ranks and receives slices[r] from every other rank r. Slices must not
  /// overlap.
  virtual Event all_gather(std::span<const std::span<std::byte>> slices, std::string label) = 0;
  /// Performs all_gather() on several sets of slices, overlapping their messages. arrived(k) is called once
  /// set k is complete, in order, and in the same way as a function given to run(). All ranks pass the same
  /// sets.
  virtual Event all_gather_each(std::vector<std::vector<std::span<std::byte>>> sets,
                                std::function<void(std::size_t)> arrived, std::string label);
  /// Sums `data` (float32, bfloat16 or float16) over all ranks in place, by the library's own algorithm. The
  /// bits of the result depend on the world size.
  virtual Event all_reduce_fastest(std::span<std::byte> data, DType dtype, std::string label) = 0;
  /// Performs the sum that ordered_sum() describes. Callers use ordered_sum(), which checks the arguments.
  virtual Event sum(OrderedSum sum, std::string label) = 0;
  virtual Event broadcast(std::span<std::byte> data, int root, std::string label) = 0;
  virtual Event barrier(std::string label) = 0;
  /// Calls `fn` on the CPU in queue order. On a GPU, kernels that `fn` launches run in queue order, too.
  virtual Event run(std::function<void()> fn, std::string label) = 0;
  /// Records a CUDA event now, so that waiting for earlier collectives does not also wait for kernels that
  /// this thread launches later. Does nothing unless the communicator runs on the caller's stream.
  virtual void mark() {}
  /// Returns a communicator of the ranks that pass the same color, in the order of their ranks here, or null
  /// for a negative color. This call is collective over all ranks and blocks. The new communicator has its
  /// own queue, sequence numbers and failures, and must not outlive this one.
  virtual std::unique_ptr<Communicator> split(int color) = 0;
  /// Makes all pending and later calls of this rank fail, and those of its peers as soon as they notice.
  /// Never blocks.
  virtual void abort(const std::string& reason) = 0;
};

}  // namespace trireme
