// The way of all work to the device: started at once, or gathered into CUDA graphs (--cuda-graph).
//
// A graph is one start instead of many, but it holds what it was made with: addresses, random keys, learning
// rates. So nothing here is replayed blindly. The program runs as ever, and each piece of work is compared
// with the one at its place in the graph of the round before: equal ones cost no call, a kernel with other
// parameters is changed in place, and anything else makes the graph anew. Results are those of work that is
// started at once, whatever the program does.
#pragma once

#include <cstddef>
#include <span>
#include <type_traits>
#include <vector>

#include "kernels/cuda/memory.h"
#include "kernels/table.h"

namespace trireme::cuda {

/// A call of a library: run(call, stream) enqueues it. Calls of equal bytes enqueue the same.
struct LibraryCall {
  void (*run)(const void* call, Stream stream);
  std::span<const std::byte> call;
};

/// On the stream of this thread, or into its recorder's graph.
void enqueue(const Kernel& kernel);
void enqueue(const LibraryCall& call);

/// The same for a struct of numbers and pointers with a void operator()(Stream) const.
template <class Call>
void enqueue_call(const Call& call) {
  static_assert(std::has_unique_object_representations_v<Call>, "its bytes are compared");
  enqueue(LibraryCall{[](const void* bytes, Stream stream) { (*static_cast<const Call*>(bytes))(stream); },
                      std::as_bytes(std::span(&call, 1))});
}

/// Whether a recorder of any thread holds work for `stream`.
bool is_held(Stream stream);
/// Throws Error(kUsage) if one does.
void check_not_held(Stream stream);

/// Of one thread. Graphs are made by a stream of their own, so that the one they are started on is never seen
/// in the middle of a capture.
class Recorder {
 public:
  /// Starts graphs on `target`.
  explicit Recorder(Stream target) : target_(target) {}
  ~Recorder();
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  Stream target() const { return target_; }
  bool is_on() const { return on_; }
  /// What is enqueued from now on is compared with the last round's.
  void begin_round();
  void end_round();
  void enqueue(const Kernel& kernel);
  void enqueue(const LibraryCall& call);
  /// Starts what was enqueued: before whatever waits for it or hands it on.
  void submit();

  /// Where the memory should lie that is allocated next: where the last round's lay, since kernels with other
  /// addresses are other kernels. Null if there is none of that size.
  void* wanted_memory(std::size_t bytes) const;
  void got_memory(void* memory, std::size_t bytes);
  const RecordingStatistics& statistics() const { return statistics_; }

 private:
  /// A kernel, or a library's call.
  struct Work {
    const void* function = nullptr;  ///< of a kernel
    unsigned blocks = 0, threads = 0;
    std::int64_t count = 0;
    void (*run)(const void* call, Stream stream) = nullptr;
    std::vector<std::byte> bytes;  ///< functor, or call
    GraphNode node = nullptr;      ///< of a kernel

    explicit Work(const Kernel& k)
        : function(k.function),
          blocks(k.blocks),
          threads(k.threads),
          count(k.count),
          bytes(k.functor.begin(), k.functor.end()) {}
    explicit Work(const LibraryCall& c) : run(c.run), bytes(c.call.begin(), c.call.end()) {}
    Kernel kernel() const { return {function, blocks, threads, count, bytes}; }
  };
  struct Recorded {
    std::vector<Work> work;
    Graph graph = nullptr;
    ReadyGraph ready = nullptr;
    std::int64_t made = 0;  ///< times
  };
  struct Memory {
    void* data;
    std::size_t bytes;
  };

  template <class Given>
  void take(const Given& given);
  void open();
  /// Whether the work at this place is the same, or could be made so.
  bool matches(Recorded& recorded, const Kernel& kernel);
  bool matches(const Recorded& recorded, const LibraryCall& call) const;
  void make_anew(Recorded& recorded);
  void capture(Recorded& recorded, Work work);
  void start_graph(Recorded& recorded);
  static void drop(Recorded& recorded) noexcept;

  const Stream target_;
  Stream recording_ = nullptr;
  bool on_ = false;
  std::vector<Recorded> graphs_;  ///< in the order of a round
  std::size_t place_ = 0;         ///< of the current one, or the next
  std::vector<Memory> memory_;    ///< as a round allocates it
  std::size_t allocated_ = 0;     ///< of these, in this round
  // The current one.
  bool is_open_ = false;
  bool is_plain_ = false;    ///< no graph here: work is started at once
  bool capturing_ = false;   ///< it is made anew
  bool is_spoiled_ = false;  ///< good for one start only
  std::size_t done_ = 0;     ///< work so far
  std::size_t most_ = 0;     ///< work that it may have
  RecordingStatistics statistics_;
};

/// That of this thread, if what it enqueues now goes there; else null.
Recorder* recording();

}  // namespace trireme::cuda
