// An emulated NCCL. Ranks are threads, and an operation copies memory when a stream reaches it. As in NCCL's
// non-blocking mode, a call is in progress until all participating ranks have made it.
#include <nccl.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/low_precision.h"
#include "tests/support/cuda_emulator/emulator.h"

namespace {

using trireme::cuda::Stream;

struct Call {
  enum Kind { kSend, kReceive, kBroadcast, kSum } kind;
  char* data;
  std::size_t count;  ///< number of bytes; in a sum, number of elements
  int peer;           ///< the other rank of a message, or the root of a broadcast
  ncclDataType_t type = ncclInt8;
};

/// One collective of all ranks, or a message between two ranks, of which calls[0] is the sender's.
struct Meeting {
  explicit Meeting(std::size_t ranks) : calls(ranks), before(ranks) {}
  std::vector<Call> calls;
  std::vector<trireme::cuda::Event> before;  ///< events in the ranks' streams before this operation
  std::size_t arrived = 0;
  bool done = false;

  /// Returns true once all streams have reached this operation.
  bool may_run() const { return done || std::ranges::all_of(before, trireme::cuda::emulator::reaches); }
  void run() {
    if (done) return;
    done = true;
    if (calls[0].kind == Call::kSum) return sum();
    const bool is_message = calls[0].kind == Call::kSend;
    const Call& from = is_message ? calls[0] : calls[static_cast<std::size_t>(calls[0].peer)];
    for (const Call& to : calls) {
      if (to.count != from.count) std::abort();
      if (&to != &from) std::memcpy(to.data, from.data, from.count);
    }
  }

 private:
  /// Adds from the last rank to the first, which is another order than that of Trireme's tree.
  void sum() const {
    if (calls[0].type == ncclBfloat16) return sum_as<trireme::BFloat16>();
    if (calls[0].type == ncclFloat16) return sum_as<trireme::Float16>();
    sum_as<float>();
  }
  template <class T>
  void sum_as() const {
    for (std::size_t i = 0; i < calls[0].count; ++i) {
      T total = 0;
      for (std::size_t r = calls.size(); r-- > 0;) total = T(total + reinterpret_cast<T*>(calls[r].data)[i]);
      for (const Call& one : calls) reinterpret_cast<T*>(one.data)[i] = total;
    }
  }
};

/// Identifies a Meeting: sender and receiver (both -1 for a collective), and the number of earlier ones
/// between them.
using Place = std::tuple<int, int, std::uint64_t>;

struct World {
  std::mutex mutex;
  std::size_t size = 0, joined = 0;
  std::map<Place, std::shared_ptr<Meeting>> meetings;
  std::atomic<bool> aborted = false;
};

}  // namespace

struct ncclComm {
  std::shared_ptr<World> world;
  int rank = 0;
  std::map<std::pair<int, int>, std::uint64_t> calls;  ///< number of calls for each sender and receiver
  std::vector<std::shared_ptr<Meeting>> pending;       ///< operations that are in progress
  Stream stream = nullptr;
};

namespace {

std::mutex worlds_mutex;
std::map<std::string, std::shared_ptr<World>> worlds;
int ids = 0;

thread_local std::vector<Call> group;
thread_local ncclComm_t group_comm = nullptr;
thread_local Stream group_stream = nullptr;
thread_local bool in_group = false;

ncclResult_t meet() {
  if (!group_comm) return ncclSuccess;
  World& world = *group_comm->world;
  const std::lock_guard lock(world.mutex);
  const auto before = trireme::cuda::make_event();
  trireme::cuda::record(before, group_stream);
  const int rank = group_comm->rank;
  for (const Call& call : group) {
    const bool sends = call.kind == Call::kSend, receives = call.kind == Call::kReceive;
    const std::pair between = sends      ? std::pair(rank, call.peer)
                              : receives ? std::pair(call.peer, rank)
                                         : std::pair(-1, -1);
    auto& meeting = world.meetings[{between.first, between.second, group_comm->calls[between]++}];
    if (!meeting) meeting = std::make_shared<Meeting>(sends || receives ? 2 : world.size);
    const auto place = sends ? 0u : receives ? 1u : static_cast<std::size_t>(rank);
    meeting->calls[place] = call;
    meeting->before[place] = before;
    ++meeting->arrived;
    group_comm->pending.push_back(meeting);
  }
  group_comm->stream = group_stream;
  group.clear();
  group_comm = nullptr;
  return ncclInProgress;
}

ncclResult_t add(const Call& call, ncclComm_t comm, cudaStream_t stream) {
  group.push_back(call);
  group_comm = comm;
  group_stream = reinterpret_cast<Stream>(stream);
  return in_group ? ncclSuccess : meet();
}

char* bytes(const void* data) { return static_cast<char*>(const_cast<void*>(data)); }

ncclResult_t get_id(ncclUniqueId* id) {
  const std::lock_guard lock(worlds_mutex);
  std::snprintf(id->internal, sizeof id->internal, "world %d", ids++);
  return ncclSuccess;
}

ncclResult_t init(ncclComm_t* comm, int size, ncclUniqueId id, int rank, ncclConfig_t* config) {
  if (config->blocking != 0) return ncclInvalidArgument;
  const std::lock_guard lock(worlds_mutex);
  auto& world = worlds[id.internal];
  if (!world) world = std::make_shared<World>();
  world->size = static_cast<std::size_t>(size);
  ++world->joined;
  *comm = new ncclComm{world, rank, {}, {}, nullptr};
  return ncclInProgress;
}

ncclResult_t destroy(ncclComm_t comm) {
  delete comm;
  return ncclSuccess;
}

ncclResult_t abort_comm(ncclComm_t comm) {
  {
    const std::lock_guard lock(comm->world->mutex);
    comm->world->aborted = true;
  }
  return destroy(comm);
}

ncclResult_t async_error(ncclComm_t comm, ncclResult_t* state) {
  std::vector<std::shared_ptr<Meeting>> all_there;
  {
    const std::lock_guard lock(comm->world->mutex);
    const World& world = *comm->world;
    const auto waits = [](const auto& meeting) { return meeting->arrived < meeting->calls.size(); };
    const bool in_progress = world.joined < world.size || std::ranges::any_of(comm->pending, waits);
    *state = world.aborted ? ncclRemoteError : in_progress ? ncclInProgress : ncclSuccess;
    if (*state == ncclSuccess) all_there = std::exchange(comm->pending, {});
  }
  for (const auto& meeting : all_there)
    trireme::cuda::emulator::enqueue_when(
        comm->stream, [meeting, world = comm->world] { return world->aborted || meeting->may_run(); },
        [meeting, world = comm->world] {
          if (!world->aborted) meeting->run();
        });
  return ncclSuccess;
}

const char* error_string(ncclResult_t result) { return result == ncclRemoteError ? "remote error" : "error"; }
const char* last_error(ncclComm_t) { return "of the emulator"; }

ncclResult_t group_start() {
  in_group = true;
  return ncclSuccess;
}
ncclResult_t group_end() {
  in_group = false;
  return meet();
}
ncclResult_t send(const void* data, std::size_t count, ncclDataType_t, int peer, ncclComm_t comm,
                  cudaStream_t stream) {
  return add({Call::kSend, bytes(data), count, peer}, comm, stream);
}
ncclResult_t receive(void* data, std::size_t count, ncclDataType_t, int peer, ncclComm_t comm,
                     cudaStream_t stream) {
  return add({Call::kReceive, bytes(data), count, peer}, comm, stream);
}
ncclResult_t broadcast(const void* from, void*, std::size_t count, ncclDataType_t, int root, ncclComm_t comm,
                       cudaStream_t stream) {
  return add({Call::kBroadcast, bytes(from), count, root}, comm, stream);
}
ncclResult_t all_reduce(const void* from, void*, std::size_t count, ncclDataType_t type, ncclRedOp_t,
                        ncclComm_t comm, cudaStream_t stream) {
  if (type != ncclFloat32 && type != ncclBfloat16 && type != ncclFloat16) return ncclInvalidArgument;
  return add({Call::kSum, bytes(from), count, 0, type}, comm, stream);
}

using trireme::cuda::emulator::pointer;
[[maybe_unused]] const bool kProvided =
    trireme::cuda::emulator::provide({{"ncclGetUniqueId", pointer(get_id)},
                                      {"ncclCommInitRankConfig", pointer(init)},
                                      {"ncclCommDestroy", pointer(destroy)},
                                      {"ncclCommAbort", pointer(abort_comm)},
                                      {"ncclCommGetAsyncError", pointer(async_error)},
                                      {"ncclGetErrorString", pointer(error_string)},
                                      {"ncclGetLastError", pointer(last_error)},
                                      {"ncclGroupStart", pointer(group_start)},
                                      {"ncclGroupEnd", pointer(group_end)},
                                      {"ncclSend", pointer(send)},
                                      {"ncclRecv", pointer(receive)},
                                      {"ncclBroadcast", pointer(broadcast)},
                                      {"ncclAllReduce", pointer(all_reduce)}});

}  // namespace
