// The part of the CUDA runtime that the kernels use: streams, events, memory.
//
// runtime.cpp is the real one. In tests an emulator (tests/support/cuda_emulator) takes its place, so that
// everything above it runs on machines without a GPU. No pointer to device memory is ever followed by host
// code. Include only from kernels/cuda and distributed/comm.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/error.h"

namespace trireme::cuda {

using Stream = struct OpaqueStream*;
using Event = struct OpaqueEvent*;

/// GPUs that can be used; 0 where there is no driver. Never throws.
int device_count() noexcept;
/// Makes `index` the device of this thread; its first use takes the device. Throws Error(kUsage), one line
/// that says why, if there is none.
void use_device(int index);

/// A new stream that does not wait for the default one. Lives as long as the process.
Stream make_stream();
void synchronize(Stream stream);

Event make_event();
void free_event(Event event) noexcept;
void record(Event event, Stream stream);
/// Returns true if all work before record() is complete.
bool is_done(Event event);
/// Work given to `stream` from now on waits for the event; the host does not.
void wait_for(Stream stream, Event event);
void synchronize(Event event);

/// The start of a kernel whose parameters are a count and a functor.
struct Kernel {
  const void* function;
  unsigned blocks, threads;
  std::int64_t count;
  std::span<const std::byte> functor;
};
void start(const Kernel& kernel, Stream stream);

// Graphs: work that is noted down once and started as a whole, as often as one likes.
using Graph = struct OpaqueGraph*;
using GraphNode = struct OpaqueNode*;
using ReadyGraph = struct OpaqueReadyGraph*;

/// From now on what the stream is given becomes a graph, and nothing runs.
void begin_capture(Stream stream);
/// Returns the graph node of the work that the stream was given last.
GraphNode last_node(Stream stream);
/// Throws if the stream was given what no graph can hold.
Graph end_capture(Stream stream);
/// Ends the stream's capture, if one is open, and drops what it holds.
void abandon_capture(Stream stream) noexcept;
/// Keep `graph` as long as the result.
ReadyGraph make_ready(Graph graph);
/// From the next start on `node` has these blocks and parameters; its function is the one it was made with.
void change(ReadyGraph ready, GraphNode node, const Kernel& kernel);
void start(ReadyGraph ready, Stream stream);
void free_graph(Graph graph) noexcept;
/// None of its starts may be under way.
void free_ready(ReadyGraph ready) noexcept;

/// Straight from the driver; null if there is none left.
void* device_malloc(std::size_t bytes);
void device_free(void* memory) noexcept;
/// Free and all memory of this thread's device, in bytes.
struct MemoryInfo {
  std::size_t free, total;
};
MemoryInfo memory_info();

/// Host memory that copies can run from and to while the host goes on. Throws Error(kUsage) when it is out.
void* pinned_malloc(std::size_t bytes);
void pinned_free(void* memory) noexcept;

// Enqueued; `host` must stay until the stream has passed the copy. Ordinary host memory makes the host wait.
void copy_to_device(void* device, const void* host, std::size_t bytes, Stream stream);
void copy_to_host(void* host, const void* device, std::size_t bytes, Stream stream);
void copy_on_device(void* to, const void* from, std::size_t bytes, Stream stream);

struct Capability {
  int major, minor, processors;
};
/// Returns the compute capability of this thread's device.
Capability capability();

/// "NVIDIA H200, compute capability 9.0, driver 13.0, runtime 13.0" of this thread's device.
const char* describe_device();

}  // namespace trireme::cuda
