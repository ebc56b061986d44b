// NCCL behind DeviceTransport. The library is loaded when it is first needed.
#include <nccl.h>

#include <mutex>
#include <thread>
#include <utility>

#include "distributed/comm/device_communicator.h"
#include "kernels/cuda/library.h"
#include "kernels/cuda/memory.h"

namespace trireme {

namespace {

/// The library's functions, typed by its own header.
struct Nccl {
  cuda::Library library{{"libnccl.so.2"}, "NCCL (package libnccl2)"};
#define TRIREME_FUNCTION(name) decltype(::name)* name = library.function<decltype(::name)>(#name);
  TRIREME_FUNCTION(ncclGetUniqueId)
  TRIREME_FUNCTION(ncclCommInitRankConfig)
  TRIREME_FUNCTION(ncclCommDestroy)
  TRIREME_FUNCTION(ncclCommAbort)
  TRIREME_FUNCTION(ncclCommGetAsyncError)
  TRIREME_FUNCTION(ncclGetErrorString)
  TRIREME_FUNCTION(ncclGetLastError)
  TRIREME_FUNCTION(ncclGroupStart)
  TRIREME_FUNCTION(ncclGroupEnd)
  TRIREME_FUNCTION(ncclSend)
  TRIREME_FUNCTION(ncclRecv)
  TRIREME_FUNCTION(ncclBroadcast)
  TRIREME_FUNCTION(ncclAllReduce)
#undef TRIREME_FUNCTION
};

const Nccl& nccl() {
  static const Nccl* const one = new Nccl;
  return *one;
}

void require(ncclResult_t result, const char* what, ncclComm_t comm = nullptr) {
  if (result == ncclSuccess || result == ncclInProgress) return;
  const char* more = nccl().ncclGetLastError(comm);
  fail(ExitCode::kPeer, "nccl: {} failed: {}{}{}; NCCL_DEBUG=INFO tells more", what,
       nccl().ncclGetErrorString(result), more && *more ? ": " : "", more ? more : "");
}

/// Calls between its begin and its end are one operation.
class Group {
 public:
  Group() { require(nccl().ncclGroupStart(), "ncclGroupStart"); }
  void end() {
    open_ = false;
    require(nccl().ncclGroupEnd(), "ncclGroupEnd");
  }
  ~Group() {
    if (open_) static_cast<void>(nccl().ncclGroupEnd());  // the error that leaves it has been said
  }
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

 private:
  bool open_ = true;
};

class NcclTransport final : public DeviceTransport {
 public:
  NcclTransport(int rank, int size, const ncclUniqueId& id, std::chrono::milliseconds patience)
      : patience_(patience) {
    cuda::stream();  // the library works on this thread's device
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    // Calls of a blocking communicator wait for peers, in the first exchange and in this call, without a
    // deadline. ncclCommAbort from another thread is no way out: it frees the communicator under the thread
    // that waits. Only the calls of a non-blocking communicator run on a thread that ncclCommAbort joins
    // first (NCCL 2.28: group.cc, ncclGroupEndInternal, and init.cc, ncclCommEnsureReady). The price is a
    // short-lived thread for each group.
    config.blocking = 0;
    require(nccl().ncclCommInitRankConfig(&comm_, size, id, rank, &config), "ncclCommInitRank");
    settle("the meeting of all ranks");
  }
  ~NcclTransport() override {
    const std::lock_guard lock(mutex_);
    if (comm_) cuda::report_failure(nccl().ncclCommDestroy(comm_) != ncclSuccess, "ncclCommDestroy");
  }

  std::string_view backend() const override { return "nccl"; }

  void exchange(std::span<const Send> sends, std::span<const Recv> recvs, cuda::Stream stream) override {
    if (sends.empty() && recvs.empty()) return;
    {
      const std::lock_guard lock(mutex_);
      alive();
      Group group;
      for (const auto& [to, data] : sends)
        if (!data.empty())
          require(nccl().ncclSend(data.data(), data.size(), ncclInt8, to, comm_, real(stream)), "ncclSend",
                  comm_);
      for (const auto& [from, data] : recvs)
        if (!data.empty())
          require(nccl().ncclRecv(data.data(), data.size(), ncclInt8, from, comm_, real(stream)), "ncclRecv",
                  comm_);
      group.end();
    }
    settle("an exchange");
  }

  void broadcast(Bytes data, int root, cuda::Stream stream) override {
    if (data.empty()) return;
    {
      const std::lock_guard lock(mutex_);
      alive();
      require(
          nccl().ncclBroadcast(data.data(), data.data(), data.size(), ncclInt8, root, comm_, real(stream)),
          "ncclBroadcast", comm_);
    }
    settle("a broadcast");
  }

  void all_reduce(Bytes data, DType dtype, cuda::Stream stream) override {
    if (data.empty()) return;
    const ncclDataType_t type = dtype == DType::kBFloat16  ? ncclBfloat16
                                : dtype == DType::kFloat16 ? ncclFloat16
                                                           : ncclFloat32;
    {
      const std::lock_guard lock(mutex_);
      alive();
      require(nccl().ncclAllReduce(data.data(), data.data(), data.size() / size_of(dtype), type, ncclSum,
                                   comm_, real(stream)),
              "ncclAllReduce", comm_);
    }
    settle("a sum");
  }

  void check() override { state(); }

  void abort() noexcept override {
    ncclComm_t ended = nullptr;
    {
      const std::lock_guard lock(mutex_);
      ended = std::exchange(comm_, nullptr);
    }
    // It may take its time, in which others shall be told.
    if (ended) cuda::report_failure(nccl().ncclCommAbort(ended) != ncclSuccess, "ncclCommAbort");
  }

 private:
  static cudaStream_t real(cuda::Stream stream) { return reinterpret_cast<cudaStream_t>(stream); }
  ncclResult_t state() {
    const std::lock_guard lock(mutex_);
    alive();
    ncclResult_t state = ncclSuccess;
    require(nccl().ncclCommGetAsyncError(comm_, &state), "ncclCommGetAsyncError", comm_);
    require(state, "a collective", comm_);
    return state;
  }
  /// Waits until the last call has been given to its stream.
  void settle(const char* what) {
    const auto begin = std::chrono::steady_clock::now();
    while (state() == ncclInProgress) {
      if (std::chrono::steady_clock::now() - begin > patience_) {
        abort();
        fail(ExitCode::kPeer, "nccl: {} did not begin within the patience of {:.1f} s: a rank is missing",
             what, std::chrono::duration<double>(patience_).count());
      }
      std::this_thread::yield();
    }
  }
  void alive() const {
    if (!comm_) fail(ExitCode::kPeer, "nccl: the communicator was aborted");
  }

  const std::chrono::milliseconds patience_;
  std::mutex mutex_;
  ncclComm_t comm_ = nullptr;  ///< null after abort()
};

}  // namespace

std::shared_ptr<DeviceTransport> make_nccl_transport(Communicator& host, std::chrono::milliseconds patience) {
  ncclUniqueId id{};
  if (host.rank() == 0) require(nccl().ncclGetUniqueId(&id), "ncclGetUniqueId");
  host.broadcast(std::as_writable_bytes(std::span(&id, 1)), 0, "NCCL's address").wait();
  return std::make_shared<NcclTransport>(host.rank(), host.size(), id, patience);
}

}  // namespace trireme
