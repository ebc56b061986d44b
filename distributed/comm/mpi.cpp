// The only file that knows MPI.
#include "distributed/comm/mpi.h"

// The C++ bindings that old headers still bring along need a library of their own.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1

#include <fmt/ranges.h>
#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <deque>
#include <exception>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include "distributed/comm/backoff.h"
#include "distributed/comm/exit_timer.h"
#include "distributed/comm/shared_memory.h"

namespace trireme {

namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kLargestSum = std::size_t{1} << 30;  // MPI counts are ints
/// Longer ones are sent as several, each without asking the receiver first (see use_tcp_well()).
constexpr std::size_t kLargestMessage = std::size_t{1} << 20;
constexpr std::size_t kReasonBytes = 1024;
constexpr std::size_t kMostSpare = 32;  // of as many bytes as a message

void check(int rc, const char* call) {
  if (rc == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(rc, text, &length);
  fail(ExitCode::kPeer, "{}: {}", call, text);
}

// The requests of one exchange, and whom each is for.
struct Requests {
  void clear() {
    handles.clear();
    statuses.clear();
    peers.clear();
    rooms.clear();
  }

  MPI_Request* add(int peer, Bytes room = {}) {
    peers.push_back(peer);
    rooms.push_back(room);
    statuses.emplace_back();
    return &handles.emplace_back(MPI_REQUEST_NULL);
  }

  // The peers of requests that are not complete.
  std::vector<int> unfinished() {
    std::vector<int> missing;
    for (std::size_t i = 0; i < handles.size(); ++i) {
      if (handles[i] == MPI_REQUEST_NULL) continue;
      int done = 0;
      const bool failed = MPI_Test(&handles[i], &done, &statuses[i]) != MPI_SUCCESS;
      if ((failed || !done) && std::ranges::find(missing, peers[i]) == missing.end())
        missing.push_back(peers[i]);
    }
    return missing;
  }

  // Takes back what can be taken back. A transfer that has begun cannot; it is left to itself.
  void cancel() {
    for (MPI_Request& handle : handles) {
      if (handle != MPI_REQUEST_NULL) MPI_Cancel(&handle);
    }
    const auto limit = Clock::now() + 50ms;
    while (!unfinished().empty() && Clock::now() < limit) std::this_thread::sleep_for(1ms);
    // MPI may read what is left as long as the process lives.
    if (!unfinished().empty()) new auto(std::move(packed));
    packed.clear();
    clear();
  }

  std::vector<MPI_Request> handles;
  std::vector<MPI_Status> statuses;  // of those that are complete
  std::vector<int> peers;
  std::vector<Bytes> rooms;                    // where receives go; of sends empty
  std::vector<std::vector<std::byte>> packed;  // what is sent in place of messages
};

struct MpiSum {
  MPI_Datatype type;
  MPI_Op op;
};

/// MPI has no 16-bit floats: they travel as integers, which our own function adds.
template <class T>
void add_narrow(void* from, void* to, int* count, MPI_Datatype*) {
  const auto* const in = static_cast<const T*>(from);
  auto* const out = static_cast<T*>(to);
  for (int i = 0; i < *count; ++i) out[i] = T(in[i] + out[i]);
}
template <class T>
MpiSum narrow_sum() {
  static const MPI_Op op = [] {
    MPI_Op made = MPI_OP_NULL;
    check(MPI_Op_create(add_narrow<T>, 1, &made), "MPI_Op_create");
    return made;
  }();
  return {MPI_UINT16_T, op};
}
MpiSum sum_of(DType dtype) {
  if (dtype == DType::kFloat32) return {MPI_FLOAT, MPI_SUM};
  return dtype == DType::kBFloat16 ? narrow_sum<BFloat16>() : narrow_sum<Float16>();
}

/// Sets the variables that make Open MPI faster over TCP, unless the user has set them. Without
/// btl_tcp_flags=1, long messages run in one direction at a time. A message above the eager limit begins with
/// a request to the receiver. The receiver answers only when its thread has a core, and if ranks compute
/// meanwhile, that wait is most of the transfer's time.
void use_tcp_well() {
  const std::string eager = fmt::format("{}", kLargestMessage + 4096);  // with room for headers
  for (const auto& [name, value] : {std::pair{"OMPI_MCA_btl_tcp_flags", std::string("1")},
                                    {"OMPI_MCA_btl_tcp_eager_limit", eager},
                                    {"OMPI_MCA_btl_tcp_max_send_size", eager}})
    setenv(name, value.c_str(), 0);
}

/// A communicator like this one, with messages of its own; collective over all its ranks.
MPI_Comm duplicate(MPI_Comm from, Deadline deadline) {
  MPI_Comm comm = MPI_COMM_NULL;
  MPI_Request request = MPI_REQUEST_NULL;
  check(MPI_Comm_idup(from, &comm, &request), "MPI_Comm_idup");
  for (int done = 0; !done;) {
    check(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
    if (!done && Clock::now() >= deadline)
      fail(ExitCode::kPeer,
           "a peer did not come to make a communicator: it has failed, is stuck, or needs "
           "more --patience");
    if (!done) std::this_thread::sleep_for(100us);
  }
  check(MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  return comm;
}

/// The ranks that share this host's memory, of MPI_COMM_WORLD; as MpiSession found them.
std::vector<int>& ranks_here() {
  static std::vector<int> ranks;
  return ranks;
}

class MpiTransport final : public Transport {
 public:
  /// Over all ranks of `comm`, which it takes over.
  MpiTransport(MPI_Comm comm, int rank, std::vector<int> everybody)
      : Transport(rank, static_cast<int>(everybody.size()), "mpi"),
        comm_(comm),
        ranks_(std::move(everybody)),
        shared_(std::make_shared<Shared>()) {}
  /// Over the ranks `members` of `from`, by tags of their own.
  MpiTransport(const MpiTransport& from, int rank, const std::vector<int>& members, int channel)
      : Transport(rank, static_cast<int>(members.size()), "mpi"),
        comm_(from.comm_),
        ranks_(from.ranks_in_mpi(members)),
        channel_(channel),
        shared_(from.shared_) {}

  ~MpiTransport() override {
    if (!begun_.empty()) cancel_all();  // an exception came in between
    if (shared_->healthy && channel_ == 0) MPI_Comm_free(&comm_);
  }

  void exchange(std::span<const ConstBytes> sends, std::span<const Bytes> recvs, Deadline deadline) override {
    start(requests_, sends, recvs);
    wait_for(requests_, deadline);
  }

  void begin(std::span<const ConstBytes> sends, std::span<const Bytes> recvs) override {
    start(begun_.emplace_back(), sends, recvs);
  }

  void finish(Deadline deadline) override {
    wait_for(begun_.front(), deadline);
    begun_.pop_front();
  }

  // Out of place: Open MPI's non-blocking in-place algorithm is far slower.
  void all_reduce(Bytes data, DType dtype, Deadline deadline) override {
    if (channel_ > 0) return all_reduce_by_exchange(data, dtype, deadline);  // MPI's own would want all ranks
    constexpr std::size_t kMost = kLargestSum / sizeof(float) * sizeof(float);
    const MpiSum operation = sum_of(dtype);
    auto sum = std::make_unique_for_overwrite<std::byte[]>(std::min(data.size(), kMost));
    for (; !data.empty(); data = data.subspan(std::min(data.size(), kMost))) {
      const std::size_t count = std::min(data.size(), kMost);
      requests_.clear();
      try {
        check(MPI_Iallreduce(data.data(), sum.get(), static_cast<int>(count / size_of(dtype)), operation.type,
                             operation.op, comm_, requests_.add(-1)),
              "MPI_Iallreduce");
        wait(requests_, deadline);
      } catch (...) {
        shared_->healthy = false;
        sum.release();  // a collective cannot be cancelled: MPI may write there as long as the process lives
        throw;
      }
      std::memcpy(data.data(), sum.get(), count);
    }
  }

  void announce(const std::string& reason) noexcept override {
    shared_->healthy = false;
    group().announce(reason, rank());
    auto text = std::make_unique<std::array<char, kReasonBytes>>();
    std::snprintf(text->data(), text->size(), "%s", reason.c_str());
    requests_.clear();
    for (int peer = 0; peer < size(); ++peer) {
      if (peer != rank()) {
        MPI_Isend(text->data(), kReasonBytes, MPI_CHAR, rank_in_mpi(peer), failure_tag(), comm_,
                  requests_.add(peer));
      }
    }
    const auto limit = Clock::now() + 100ms;
    while (!requests_.unfinished().empty() && Clock::now() < limit) std::this_thread::sleep_for(1ms);
    // A peer that is gone leaves its send pending for ever, and MPI may still read the text.
    if (!requests_.unfinished().empty()) text.release();
    requests_.clear();
  }

  void interrupt() noexcept override {
    interrupted_ = true;
    group().interrupt();
  }

  // MPI's own split blocks without a deadline.
  std::unique_ptr<Transport> split(const std::vector<int>& members, Deadline deadline) override {
    int channel = ++shared_->last_channel;
    for (const std::string& said : tell(fmt::format("{}", channel), members, deadline))
      channel = std::max(channel, std::stoi(said));  // that none of them has used
    shared_->last_channel = channel;
    const auto self = static_cast<int>(std::ranges::find(members, rank()) - members.begin());
    const std::vector<int> hosts = hosts_among(members);
    std::vector<int> here;
    for (std::size_t i = 0; i < hosts.size(); ++i)
      if (hosts[i] == hosts[static_cast<std::size_t>(self)]) here.push_back(static_cast<int>(i));
    auto made = std::make_unique<MpiTransport>(*this, self, members, channel);
    made->share_memory(here, deadline);
    return made;
  }

  /// Collective. `here` are the ranks of this host.
  void share_memory(const std::vector<int>& here, Deadline deadline) {
    auto group =
        make_process_group(here, rank(), [&](const std::string& mine) { return tell(mine, here, deadline); });
    std::vector<int> everybody(static_cast<std::size_t>(size())), hosts;
    std::iota(everybody.begin(), everybody.end(), 0);
    const int host = group ? here.front() : rank();
    for (const std::string& said : tell(fmt::format("{}", host), everybody, deadline))
      hosts.push_back(std::stoi(said));
    set_hosts(std::move(hosts), std::move(group));
  }

 private:
  int rank_in_mpi(int peer) const { return ranks_[static_cast<std::size_t>(peer)]; }
  std::vector<int> ranks_in_mpi(const std::vector<int>& members) const {
    std::vector<int> ranks;
    for (const int member : members) ranks.push_back(rank_in_mpi(member));
    return ranks;
  }
  int data_tag() const { return 2 * channel_; }
  int failure_tag() const { return 2 * channel_ + 1; }

  /// Sends `mine` to each of `peers`, which include this rank, and returns their texts in the order of
  /// `peers`. Cuts texts to 63 characters.
  std::vector<std::string> tell(const std::string& mine, const std::vector<int>& peers, Deadline deadline) {
    using Text = std::array<char, 64>;
    Text told{};
    std::copy_n(mine.begin(), std::min(mine.size(), told.size() - 1), told.begin());
    std::vector<Text> heard(static_cast<std::size_t>(size()), told);
    std::vector<ConstBytes> sends(heard.size());
    std::vector<Bytes> recvs(heard.size());
    for (const int peer : peers) {
      sends[peer] = std::as_bytes(std::span(told));
      recvs[peer] = std::as_writable_bytes(std::span(heard[peer]));
    }
    exchange(sends, recvs, deadline);
    std::vector<std::string> all;
    for (const int peer : peers) all.emplace_back(heard[peer].data());
    return all;
  }

  void start(Requests& requests, std::span<const ConstBytes> sends, std::span<const Bytes> recvs) {
    requests.clear();
    try {
      for (int peer = 0; peer < size(); ++peer)
        if (peer != rank()) start_receive(requests, peer, recvs[peer]);
      // Each rank begins with its right neighbour, so that not all send to rank 0 first.
      for (int step = 1; step < size(); ++step)
        start_send(requests, (rank() + step) % size(), sends[(rank() + step) % size()]);
    } catch (...) {
      cancel_all();
      throw;
    }
  }

  void wait_for(Requests& requests, Deadline deadline) {
    try {
      wait(requests, deadline);
      take_in(requests);
    } catch (...) {
      cancel_all();
      throw;
    }
    std::ranges::move(requests.packed, std::back_inserter(spare_));
    requests.packed.clear();
    if (spare_.size() > kMostSpare) spare_.resize(kMostSpare);
  }

  // All is there, some of it packed.
  void take_in(const Requests& requests) {
    for (std::size_t i = 0; i < requests.rooms.size(); ++i) {
      const Bytes room = requests.rooms[i];
      if (room.empty()) continue;
      int bytes = 0;
      check(MPI_Get_count(&requests.statuses[i], MPI_BYTE, &bytes), "MPI_Get_count");
      if (!incoming(room.first(static_cast<std::size_t>(bytes)), room))
        fail_length(requests.peers[i], static_cast<std::size_t>(bytes), room.size());
    }
  }

  void cancel_all() {
    shared_->healthy = false;
    requests_.cancel();
    for (Requests& requests : begun_) requests.cancel();
  }

  void start_receive(Requests& requests, int peer, Bytes to) {
    for (; !to.empty(); to = to.subspan(std::min(to.size(), kLargestMessage))) {
      const Bytes room = to.first(std::min(to.size(), kLargestMessage));
      check(MPI_Irecv(room.data(), static_cast<int>(room.size()), MPI_BYTE, rank_in_mpi(peer), data_tag(),
                      comm_, requests.add(peer, room)),
            "MPI_Irecv");
    }
  }

  void start_send(Requests& requests, int peer, ConstBytes from) {
    for (; !from.empty(); from = from.subspan(std::min(from.size(), kLargestMessage))) {
      std::vector<std::byte> memory;
      if (!spare_.empty()) memory = std::exchange(spare_.back(), {}), spare_.pop_back();
      const ConstBytes sent = outgoing(peer, from.first(std::min(from.size(), kLargestMessage)), memory);
      requests.packed.push_back(std::move(memory));
      check(MPI_Isend(sent.data(), static_cast<int>(sent.size()), MPI_BYTE, rank_in_mpi(peer), data_tag(),
                      comm_, requests.add(peer)),
            "MPI_Isend");
    }
  }

  void wait(Requests& requests, Deadline deadline) {
    auto& handles = requests.handles;
    for (Backoff backoff;;) {
      int done = 0;
      check(MPI_Testall(static_cast<int>(handles.size()), handles.data(), &done, requests.statuses.data()),
            "MPI_Testall");
      if (done) return;
      if (interrupted_) fail(ExitCode::kPeer, "interrupted");
      if (!backoff.pause()) continue;
      throw_if_peer_failed();
      if (Clock::now() < deadline) continue;
      const std::vector<int> missing = requests.unfinished();
      if (missing.empty()) return;
      fail_no_answer(missing);
    }
  }

  void throw_if_peer_failed() {
    int found = 0;
    MPI_Status status;
    check(MPI_Iprobe(MPI_ANY_SOURCE, failure_tag(), comm_, &found, &status), "MPI_Iprobe");
    if (!found) return;
    std::array<char, kReasonBytes> text;
    const auto peer = static_cast<int>(std::ranges::find(ranks_, status.MPI_SOURCE) - ranks_.begin());
    check(MPI_Recv(text.data(), kReasonBytes, MPI_CHAR, status.MPI_SOURCE, failure_tag(), comm_,
                   MPI_STATUS_IGNORE),
          "MPI_Recv");
    throw SecondaryError(peer, fmt::format("rank {} reports: {}", peer, text.data()));
  }

  [[noreturn]] void fail_no_answer(const std::vector<int>& missing) {
    const bool collective = std::ranges::find(missing, -1) != missing.end();
    fail(ExitCode::kPeer, "no answer from rank {}: it has failed, is stuck, or needs more --patience",
         collective ? "(unknown)" : fmt::format("{}", fmt::join(missing, ", ")));
  }

  MPI_Comm comm_;
  const std::vector<int> ranks_;  // in comm_
  const int channel_ = 0;         // of messages over comm_; 0 is that of all ranks
  /// By this process's transports over comm_. One thread splits at a time.
  struct Shared {
    int last_channel = 0;
    // False: requests may be pending for ever, so the communicator cannot be freed.
    std::atomic<bool> healthy = true;
  };
  const std::shared_ptr<Shared> shared_;
  Requests requests_;
  std::deque<Requests> begun_;
  std::vector<std::vector<std::byte>> spare_;  // memory for packed messages
  std::atomic<bool> interrupted_ = false;
};

}  // namespace

MpiSession::MpiSession(std::chrono::milliseconds patience)
    : patience_(patience), exceptions_(std::uncaught_exceptions()) {
  const ExitTimer timer(patience, ExitCode::kPeer, "MPI start-up");
  use_tcp_well();
  int provided = MPI_THREAD_SINGLE;
  check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided), "MPI_Init_thread");
  if (provided < MPI_THREAD_MULTIPLE) {
    fail(ExitCode::kUsage,
         "this MPI gives thread level {} but {} (MPI_THREAD_MULTIPLE) is needed: use a build with it",
         provided, MPI_THREAD_MULTIPLE);
  }
  check(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  check(MPI_Comm_rank(MPI_COMM_WORLD, &rank_), "MPI_Comm_rank");
  check(MPI_Comm_size(MPI_COMM_WORLD, &size_), "MPI_Comm_size");
  MPI_Comm host = MPI_COMM_NULL;
  check(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &host),
        "MPI_Comm_split_type");
  MPI_Comm_rank(host, &local_rank_);
  MPI_Comm_size(host, &local_size_);
  ranks_here().resize(static_cast<std::size_t>(local_size_));
  check(MPI_Allgather(&rank_, 1, MPI_INT, ranks_here().data(), 1, MPI_INT, host), "MPI_Allgather");
  MPI_Comm_free(&host);
}

MpiSession::~MpiSession() {
  if (std::uncaught_exceptions() > exceptions_) return;
  const ExitTimer timer(patience_, ExitCode::kPeer, "MPI_Finalize");
  MPI_Finalize();
}

void MpiSession::abort_if_running(ExitCode code) {
  int started = 0;
  int finished = 0;
  MPI_Initialized(&started);
  MPI_Finalized(&finished);
  if (!started || finished) return;
  const ExitTimer timer(3s, code, "MPI_Abort");
  MPI_Abort(MPI_COMM_WORLD, static_cast<int>(code));
  _exit(static_cast<int>(code));
}

std::string mpi_library_version() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  int size = 0;
  MPI_Get_library_version(text, &size);
  const std::string version(text, static_cast<std::size_t>(size));
  return version.substr(0, version.find_first_of(",\n"));
}

std::unique_ptr<Transport> make_mpi_transport(std::chrono::milliseconds patience) {
  int started = 0;
  MPI_Initialized(&started);
  TRIREME_CHECK(started, "a communicator over MPI needs an MpiSession");
  const Deadline deadline = Clock::now() + patience;
  int rank = 0, size = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  std::vector<int> everybody(static_cast<std::size_t>(size));
  std::iota(everybody.begin(), everybody.end(), 0);
  auto made = std::make_unique<MpiTransport>(duplicate(MPI_COMM_WORLD, deadline), rank, std::move(everybody));
  made->share_memory(ranks_here(), deadline);
  return made;
}

std::unique_ptr<HostCommunicator> make_mpi_communicator(std::chrono::milliseconds patience) {
  return std::make_unique<HostCommunicator>(make_mpi_transport(patience), patience);
}

}  // namespace trireme
