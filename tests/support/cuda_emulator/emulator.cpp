#include "tests/support/cuda_emulator/emulator.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/table.h"

namespace trireme::cuda {

using NodeWork = std::function<void()>;

struct OpaqueNode {
  const void* function;  ///< the kernel's function; null: not a kernel
  std::size_t place;     ///< index in the graph's work
  Graph graph;
};

struct OpaqueGraph {
  std::vector<NodeWork> work;
  std::deque<OpaqueNode> nodes;  ///< a deque, so that pointers to nodes stay valid
};

struct OpaqueReadyGraph {
  Graph graph;
  std::shared_ptr<std::vector<NodeWork>> work;
  int under_way = 0;
};

struct OpaqueStream {
  struct Item {
    NodeWork work;
    std::function<bool()> may_run;  ///< null: the work may always run
  };
  std::deque<Item> work;
  std::uint64_t issued = 0, done = 0;
  Graph capture = nullptr;
};

struct OpaqueEvent {
  Stream stream = nullptr;
  std::uint64_t ticket = 0;  ///< number of the last work item before the event
};

namespace emulator {

namespace {

/// The state of the emulated machine. Its one mutex is recursive, because work may enqueue work and wait for
/// it.
struct Machine {
  std::recursive_mutex mutex;
  std::vector<std::unique_ptr<OpaqueStream>> streams;
  std::map<char*, std::size_t> device, pinned;
  std::size_t device_bytes = std::size_t{1} << 30, used_bytes = 0, mallocs = 0, pinned_mallocs = 0, waits = 0;
  int open = 0;    ///< number of Open objects; device memory is accessible if it is not 0
  int graphs = 0;  ///< number of executable graphs
  std::function<void()> while_making_ready;
  std::set<const void*> started;  ///< code that has been launched without a capture
};

thread_local bool time_stands = false;
thread_local int open_captures = 0;

Machine& machine() {
  static Machine* const one = new Machine;
  return *one;
}

std::size_t page() { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }
std::size_t in_pages(std::size_t bytes) { return (bytes + page() - 1) / page() * page(); }

void protect(int rights) {
  for (const auto& [memory, bytes] : machine().device)
    if (mprotect(memory, in_pages(bytes), rights) != 0) std::abort();
}

/// Makes device memory accessible while it exists.
class Open {
 public:
  Open() {
    if (machine().open++ == 0) protect(PROT_READ | PROT_WRITE);
  }
  ~Open() {
    if (--machine().open == 0) protect(PROT_NONE);
  }
  Open(const Open&) = delete;
  Open& operator=(const Open&) = delete;
};

/// Runs the first work item of a stream. Returns false if it may not run yet.
bool run_one(OpaqueStream& stream) {
  if (const auto& may_run = stream.work.front().may_run; may_run && !may_run()) return false;
  const auto work = std::move(stream.work.front().work);
  stream.work.pop_front();
  // Use one thread, whichever thread waits: sums of CPU kernels depend on the number of threads.
  const int threads_before = threads();
  set_threads(1);
  const Open open;
  work();
  set_threads(threads_before);
  ++stream.done;
  return true;
}

/// Runs the stream's work up to item `ticket`. Returns false if an item may not run yet.
bool run_until(OpaqueStream& stream, std::uint64_t ticket) {
  if (stream.done >= ticket) return true;
  const Open open;
  while (stream.done < ticket)
    if (!run_one(stream)) return false;
  return true;
}

/// Blocks until the stream's work up to item `ticket` has run. Releases the lock while an item may not run
/// yet.
void finish(OpaqueStream& stream, std::uint64_t ticket) {
  for (;;) {
    {
      const std::lock_guard lock(machine().mutex);
      if (run_until(stream, ticket)) return;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

bool is_pinned(const void* memory) {
  const auto& pinned = machine().pinned;
  const auto* at = static_cast<const char*>(memory);
  const auto after = pinned.upper_bound(const_cast<char*>(at));
  return after != pinned.begin() && at < std::prev(after)->first + std::prev(after)->second;
}

}  // namespace

namespace {

[[noreturn]] void misused(const char* what) {
  std::fprintf(stderr, "cuda emulator: %s\n", what);
  std::abort();
}

}  // namespace

bool is_capturing(Stream stream) {
  std::lock_guard lock(machine().mutex);
  return stream->capture != nullptr;
}

void making_plan() {
  if (open_captures > 0) misused("a library is initialised or makes a plan in the middle of a capture");
}

void starting(const void* code, Stream stream) {
  std::lock_guard lock(machine().mutex);
  if (!stream->capture)
    machine().started.insert(code);
  else if (!machine().started.contains(code))
    misused("a capture of code that was never started before");
}

namespace {

void give(Stream stream, NodeWork work, const void* function, std::function<bool()> may_run = {}) {
  std::lock_guard lock(machine().mutex);
  if (function) starting(function, stream);
  if (Graph const graph = stream->capture) {
    graph->nodes.push_back({function, graph->work.size(), graph});
    graph->work.push_back(std::move(work));
    return;
  }
  stream->work.push_back({std::move(work), std::move(may_run)});
  ++stream->issued;
}

/// Memory for a kernel's functor, with the alignment and size limit of a GPU.
struct alignas(16) Functor {
  static constexpr std::size_t kMost = 4096;  // largest size in bytes that the CUDA driver accepts
  std::byte bytes[kMost];
};

NodeWork work_of(const Kernel& k) {
  if (k.functor.size() > Functor::kMost) misused("a functor of more than 4096 bytes");
  auto copy = std::make_shared<Functor>();
  std::ranges::copy(k.functor, copy->bytes);
  return [run = reinterpret_cast<KernelFunction>(k.function), count = k.count, copy] {
    run(count, copy->bytes);
  };
}

}  // namespace

void enqueue(Stream stream, std::function<void()> work) { give(stream, std::move(work), nullptr); }
void enqueue_when(Stream stream, std::function<bool()> may_run, std::function<void()> work) {
  give(stream, std::move(work), nullptr, std::move(may_run));
}
bool reaches(Event event) {
  std::lock_guard lock(machine().mutex);
  return !event->stream || run_until(*event->stream, event->ticket);
}

void set_device_bytes(std::size_t bytes) { machine().device_bytes = bytes; }
std::size_t waits() { return machine().waits; }
int ready_graphs() { return machine().graphs; }
void set_while_making_ready(std::function<void()> fn) { machine().while_making_ready = std::move(fn); }
std::size_t pinned_mallocs() { return machine().pinned_mallocs; }
std::size_t device_mallocs() { return machine().mallocs; }

TimeStands::TimeStands() { time_stands = true; }
TimeStands::~TimeStands() { time_stands = false; }

std::size_t done(Stream stream) {
  std::lock_guard lock(machine().mutex);
  return stream->done;
}

std::size_t pending() {
  std::lock_guard lock(machine().mutex);
  std::size_t count = 0;
  for (const auto& stream : machine().streams) count += stream->work.size();
  return count;
}

}  // namespace emulator

using emulator::machine;

int device_count() noexcept { return 1; }

void use_device(int index) {
  if (index != 0) fail(ExitCode::kUsage, "device cuda:{}: the emulator has one device", index);
}

Stream make_stream() {
  std::lock_guard lock(machine().mutex);
  machine().streams.push_back(std::make_unique<OpaqueStream>());
  return machine().streams.back().get();
}

void synchronize(Stream stream) {
  std::uint64_t ticket = 0;
  {
    std::lock_guard lock(machine().mutex);
    if (stream->capture) emulator::misused("a wait for a stream in the middle of a capture");
    ++machine().waits;
    ticket = stream->issued;
  }
  emulator::finish(*stream, ticket);
}

Event make_event() { return new OpaqueEvent; }
void free_event(Event event) noexcept { delete event; }

void record(Event event, Stream stream) {
  std::lock_guard lock(machine().mutex);
  if (stream->capture) emulator::misused("an event in the middle of a capture");
  *event = {stream, stream->issued};
}

bool is_done(Event event) {
  std::lock_guard lock(machine().mutex);
  if (!event->stream || event->stream->done >= event->ticket) return true;
  if (!emulator::time_stands) emulator::run_one(*event->stream);  // work goes on between queries
  return false;
}

void wait_for(Stream stream, Event event) {
  if (!event->stream) return;
  if (stream->capture) emulator::misused("a wait for an event in the middle of a capture");
  emulator::enqueue_when(
      stream, [e = *event] { return emulator::run_until(*e.stream, e.ticket); }, [] {});
}

void synchronize(Event event) {
  {
    std::lock_guard lock(machine().mutex);
    ++machine().waits;
  }
  if (event->stream) emulator::finish(*event->stream, event->ticket);
}

void start(const Kernel& kernel, Stream stream) {
  emulator::give(stream, emulator::work_of(kernel), kernel.function);
}

void begin_capture(Stream stream) {
  std::lock_guard lock(machine().mutex);
  if (stream->capture || !stream->work.empty()) emulator::misused("a capture by a stream that is in use");
  stream->capture = new OpaqueGraph;
  ++emulator::open_captures;
}

GraphNode last_node(Stream stream) {
  std::lock_guard lock(machine().mutex);
  if (!stream->capture || stream->capture->nodes.empty()) emulator::misused("no last node");
  return &stream->capture->nodes.back();
}

Graph end_capture(Stream stream) {
  std::lock_guard lock(machine().mutex);
  if (!stream->capture) emulator::misused("the end of no capture");
  --emulator::open_captures;
  return std::exchange(stream->capture, nullptr);
}

void abandon_capture(Stream stream) noexcept {
  std::lock_guard lock(machine().mutex);
  if (!stream->capture) return;
  --emulator::open_captures;
  delete std::exchange(stream->capture, nullptr);
}

ReadyGraph make_ready(Graph graph) {
  std::lock_guard lock(machine().mutex);
  ++machine().graphs;
  if (machine().while_making_ready) machine().while_making_ready();
  return new OpaqueReadyGraph{graph, std::make_shared<std::vector<NodeWork>>(graph->work)};
}

void change(ReadyGraph ready, GraphNode node, const Kernel& kernel) {
  std::lock_guard lock(machine().mutex);
  if (node->graph != ready->graph || !node->function || node->function != kernel.function)
    emulator::misused("a change of what is no such kernel of the graph");
  // Copy the work, because launches in flight must run with the kernels that they were launched with.
  ready->work = std::make_shared<std::vector<NodeWork>>(*ready->work);
  (*ready->work)[node->place] = emulator::work_of(kernel);
}

void start(ReadyGraph ready, Stream stream) {
  std::lock_guard lock(machine().mutex);
  if (stream->capture) emulator::misused("the start of a graph in the middle of a capture");
  ++ready->under_way;
  emulator::enqueue(stream, [ready, all = ready->work] {
    for (const NodeWork& work : *all) work();
    --ready->under_way;
  });
}

void free_graph(Graph graph) noexcept { delete graph; }

void free_ready(ReadyGraph ready) noexcept {
  std::lock_guard lock(machine().mutex);
  if (ready->under_way > 0) emulator::misused("a graph freed while it is under way");
  --machine().graphs;
  delete ready;
}

void* device_malloc(std::size_t bytes) {
  auto& m = machine();
  std::lock_guard lock(m.mutex);
  ++m.mallocs;
  if (m.used_bytes + bytes > m.device_bytes) return nullptr;
  const std::size_t pages = emulator::in_pages(bytes);
  void* const memory =
      mmap(nullptr, pages + emulator::page(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  std::memset(memory, 0xff, std::min(pages, std::size_t{1} << 20));
  if (mprotect(static_cast<char*>(memory) + pages, emulator::page(), PROT_NONE) != 0 ||
      (m.open == 0 && mprotect(memory, pages, PROT_NONE) != 0))
    std::abort();
  m.device[static_cast<char*>(memory)] = bytes;
  m.used_bytes += bytes;
  return memory;
}

void device_free(void* memory) noexcept {
  auto& m = machine();
  std::lock_guard lock(m.mutex);
  const auto found = m.device.find(static_cast<char*>(memory));
  if (found == m.device.end()) std::abort();
  // Keep the address range reserved without access rights, so that a later use of the block crashes.
  if (mmap(memory, emulator::in_pages(found->second), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
           0) == MAP_FAILED)
    std::abort();
  m.used_bytes -= found->second;
  m.device.erase(found);
}

MemoryInfo memory_info() { return {machine().device_bytes - machine().used_bytes, machine().device_bytes}; }

void* pinned_malloc(std::size_t bytes) {
  std::lock_guard lock(machine().mutex);
  auto* const memory = static_cast<char*>(std::malloc(std::max<std::size_t>(bytes, 1)));
  machine().pinned[memory] = bytes;
  ++machine().pinned_mallocs;
  return memory;
}

void pinned_free(void* memory) noexcept {
  std::lock_guard lock(machine().mutex);
  machine().pinned.erase(static_cast<char*>(memory));
  std::free(memory);
}

void copy_to_device(void* device, const void* host, std::size_t bytes, Stream stream) {
  if (emulator::is_pinned(host)) return emulator::enqueue(stream, [=] { std::memcpy(device, host, bytes); });
  // Memory that is not pinned is read before the call returns.
  const auto* const from = static_cast<const char*>(host);
  emulator::enqueue(stream, [device, kept = std::vector<char>(from, from + bytes)] {
    if (!kept.empty()) std::memcpy(device, kept.data(), kept.size());
  });
}

void copy_to_host(void* host, const void* device, std::size_t bytes, Stream stream) {
  emulator::enqueue(stream, [=] {
    if (bytes > 0) std::memcpy(host, device, bytes);
  });
  if (emulator::is_pinned(host)) return;
  std::uint64_t ticket = 0;
  {
    std::lock_guard lock(machine().mutex);
    ticket = stream->issued;
  }
  emulator::finish(*stream, ticket);  // not counted in waits(), because the caller waits as well
}

void copy_on_device(void* to, const void* from, std::size_t bytes, Stream stream) {
  emulator::enqueue(stream, [=] {
    if (bytes > 0) std::memmove(to, from, bytes);
  });
}

}  // namespace trireme::cuda
