// All work reaches the device through these functions. It is started at once, or gathered into CUDA graphs
// (--cuda-graph).
//
// A graph is one start instead of many, but it holds the addresses, random keys and learning rates with which
// it was made. So nothing here is replayed blindly. The program runs as usual, and each piece of work is
// compared with the piece at the same place in the previous round: an equal one costs no call, a kernel with
// other parameters is changed in place, and anything else makes the graph again. Results are those of work
// that is started at once, whatever the program does.
//
// A capture is open only while a graph is made, in submit(), from pieces that are known by then. This thread
// initialises no library, makes no plan and allocates no memory meanwhile: each of these may synchronize the
// device, which invalidates every open capture. For the same reason a piece is captured only after this
// recorder has started the same kernel or plan once without a capture: its first start may load code. Another
// thread may still synchronize the device, so work whose capture fails is started without a graph.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <type_traits>
#include <unordered_set>
#include <vector>

#include "kernels/cuda/memory.h"
#include "kernels/table.h"

namespace trireme::cuda {

/// A call of a library: run(call, stream) enqueues it. Calls with equal bytes enqueue the same work.
struct LibraryCall {
  void (*run)(const void* call, Stream stream);
  std::span<const std::byte> call;
  /// Identifies the code that the call runs; null: `run` identifies it. `call` has to differ where this
  /// differs.
  const void* plan = nullptr;
};

/// Enqueues the work on this thread's stream, or into its recorder's graph. A recorder reports the failure of
/// a library's call when it submits the work, not here.
void enqueue(const Kernel& kernel);
void enqueue(const LibraryCall& call);

/// Enqueues a struct of numbers and pointers with a member `void operator()(Stream) const`. `plan`, if not
/// null, identifies the code that the call runs; it must live as long as the process.
template <class Call>
void enqueue_call(const Call& call, const void* plan = nullptr) {
  static_assert(std::has_unique_object_representations_v<Call>, "its bytes are compared");
  enqueue(LibraryCall{[](const void* bytes, Stream stream) { (*static_cast<const Call*>(bytes))(stream); },
                      std::as_bytes(std::span(&call, 1)), plan});
}

/// Returns true if a recorder of any thread holds work for `stream`.
bool is_held(Stream stream);
/// Throws Error(kUsage) if one does.
void check_not_held(Stream stream);

/// Records the work of one thread. Graphs are captured on a stream of their own, so that the stream on which
/// they are started never is in the middle of a capture.
class Recorder {
 public:
  /// Starts graphs on `target`.
  explicit Recorder(Stream target) : target_(target) {}
  ~Recorder();
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  Stream target() const { return target_; }
  bool is_on() const { return on_; }
  /// Work that is enqueued from now on is compared with that of the previous round.
  void begin_round();
  void end_round();
  void enqueue(const Kernel& kernel);
  void enqueue(const LibraryCall& call);
  /// Starts the work that was enqueued. Call it before anything waits for that work or hands its results on.
  /// Throws the error of a library's call that fails; the work before that call has been started then, and
  /// the work after it has not.
  void submit();

  /// Returns where the memory that is allocated next should lie: where it lay in the previous round, since
  /// kernels with other addresses are other kernels. Null if that memory had another size.
  void* wanted_memory(std::size_t bytes) const;
  void got_memory(void* memory, std::size_t bytes);
  const RecordingStatistics& statistics() const { return statistics_; }

 private:
  /// A kernel, or a library's call.
  struct Work {
    const void* function = nullptr;  ///< the kernel's; null for a library's call
    unsigned blocks = 0, threads = 0;
    std::int64_t count = 0;
    void (*run)(const void* call, Stream stream) = nullptr;
    const void* plan = nullptr;
    std::vector<std::byte> bytes;  ///< functor, or call
    GraphNode node = nullptr;      ///< the kernel's, once it is in a graph

    explicit Work(const Kernel& k)
        : function(k.function),
          blocks(k.blocks),
          threads(k.threads),
          count(k.count),
          bytes(k.functor.begin(), k.functor.end()) {}
    explicit Work(const LibraryCall& c) : run(c.run), plan(c.plan), bytes(c.call.begin(), c.call.end()) {}
    Kernel kernel() const { return {function, blocks, threads, count, bytes}; }
    void start_on(Stream stream) const;
    /// Identifies the code that this runs.
    const void* code() const;
  };
  /// The work between two submissions, and the graph that was made of it.
  struct Recorded {
    std::vector<Work> work;
    Graph graph = nullptr;
    ReadyGraph ready = nullptr;  ///< null: the work was started without a graph the last time
    std::int64_t made = 0;       ///< how often its graph was made
    int failures = 0;            ///< how often its work could not be captured
  };
  struct Memory {
    void* data;
    std::size_t bytes;
  };

  template <class Given>
  void take(const Given& given);
  void open();
  bool matches(Recorded& recorded, const Kernel& kernel);
  bool matches(Recorded& recorded, const LibraryCall& call);
  void forget_from_here(Recorded& recorded);
  void start_recorded(Recorded& recorded);
  std::string make_graph(Recorded& recorded);
  static void drop_graph(Recorded& recorded) noexcept;

  const Stream target_;
  Stream recording_ = nullptr;
  bool on_ = false;
  std::vector<Recorded> graphs_;             ///< in the order of a round
  std::size_t place_ = 0;                    ///< index of the current one, or of the next
  std::vector<Memory> memory_;               ///< in the order in which a round allocates it
  std::size_t allocated_ = 0;                ///< how many of these this round has allocated
  std::unordered_set<const void*> started_;  ///< code that has been started without a capture
  // The current one.
  bool is_open_ = false;
  bool is_plain_ = false;  ///< there is no graph at this place: work is started at once
  std::size_t done_ = 0;   ///< pieces of work so far
  std::size_t most_ = 0;   ///< pieces of work that it may have
  RecordingStatistics statistics_;
};

/// Returns the recorder of this thread if work that is enqueued now goes there; otherwise null.
Recorder* recording();

}  // namespace trireme::cuda
