// NCCL on paper: ranks are threads, and an operation moves bytes when a stream comes to it. Like the real one
// in its non-blocking mode, a call is in progress until all ranks have made it.
#include <nccl.h>

#include <condition_variable>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "kernels/low_precision.h"
#include "tests/support/cuda_emulator/emulator.h"

namespace {

using trireme::cuda::Stream;

struct Call {
  enum Kind { kSend, kReceive, kBroadcast, kSum } kind;
  char* data;
  std::size_t count;  ///< bytes; elements of a sum
  int peer;           ///< or root
  ncclDataType_t type = ncclInt8;
};

/// One operation of all ranks.
struct Meeting {
  explicit Meeting(std::size_t ranks) : calls(ranks), before(ranks) {}
  std::vector<std::vector<Call>> calls;
  std::vector<trireme::cuda::Event> before;  ///< what each rank's stream had to do first
  std::size_t arrived = 0;
  bool done = false;

  void run() {
    if (done) return;
    done = true;
    for (const auto event : before) trireme::cuda::synchronize(event);
    for (std::size_t r = 0; r < calls.size(); ++r)
      for (const Call& call : calls[r]) run(static_cast<int>(r), call);
    sum();
  }

 private:
  void run(int rank, const Call& call) const {
    if (call.kind == Call::kReceive) {
      for (const Call& sent : calls[static_cast<std::size_t>(call.peer)])
        if (sent.kind == Call::kSend && sent.peer == rank) {
          if (sent.count != call.count) std::abort();
          std::memcpy(call.data, sent.data, call.count);
        }
    } else if (call.kind == Call::kBroadcast && rank != call.peer) {
      std::memcpy(call.data, calls[static_cast<std::size_t>(call.peer)][0].data, call.count);
    }
  }
  /// From the last rank to the first: another order than ours.
  void sum() const {
    if (calls[0].empty() || calls[0][0].kind != Call::kSum) return;
    if (calls[0][0].type == ncclBfloat16) return sum_as<trireme::BFloat16>();
    if (calls[0][0].type == ncclFloat16) return sum_as<trireme::Float16>();
    sum_as<float>();
  }
  template <class T>
  void sum_as() const {
    for (std::size_t i = 0; i < calls[0][0].count; ++i) {
      T total = 0;
      for (std::size_t r = calls.size(); r-- > 0;)
        total = T(total + reinterpret_cast<T*>(calls[r][0].data)[i]);
      for (const auto& one : calls) reinterpret_cast<T*>(one[0].data)[i] = total;
    }
  }
};

struct World {
  std::mutex mutex;
  std::size_t size = 0, joined = 0;
  std::map<std::uint64_t, std::shared_ptr<Meeting>> meetings;
  bool aborted = false;
};

}  // namespace

struct ncclComm {
  std::shared_ptr<World> world;
  int rank = 0;
  std::uint64_t calls = 0;           ///< operations so far
  std::shared_ptr<Meeting> pending;  ///< in progress
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
  auto& meeting = world.meetings[group_comm->calls++];
  if (!meeting) meeting = std::make_shared<Meeting>(world.size);
  const auto rank = static_cast<std::size_t>(group_comm->rank);
  meeting->calls[rank] = std::move(group);
  meeting->before[rank] = trireme::cuda::make_event();
  trireme::cuda::record(meeting->before[rank], group_stream);
  ++meeting->arrived;
  group_comm->pending = meeting;
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
  *comm = new ncclComm{world, rank, 0, nullptr, nullptr};
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
  std::shared_ptr<Meeting> all_there;
  {
    const std::lock_guard lock(comm->world->mutex);
    const World& world = *comm->world;
    const bool waits = world.joined < world.size || (comm->pending && comm->pending->arrived < world.size);
    *state = world.aborted ? ncclRemoteError : waits ? ncclInProgress : ncclSuccess;
    if (*state == ncclSuccess) all_there = std::move(comm->pending);
    comm->pending = *state == ncclSuccess ? nullptr : comm->pending;
  }
  if (all_there) trireme::cuda::emulator::enqueue(comm->stream, [all_there] { all_there->run(); });
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
