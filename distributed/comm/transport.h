// Transport sends point-to-point messages with a deadline. HostCommunicator is built on it.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/dtype.h"
#include "kernels/error.h"

namespace trireme {

using Bytes = std::span<std::byte>;
using ConstBytes = std::span<const std::byte>;
using Deadline = std::chrono::steady_clock::time_point;

class HostGroup;

/// An error that was caused by a failure on another rank, or by a call of abort().
class SecondaryError : public Error {
 public:
  SecondaryError(int origin, const std::string& what) : Error(ExitCode::kPeer, what), origin_(origin) {}
  /// The rank on which the failure began.
  int origin() const { return origin_; }

 private:
  int origin_;
};

/// Sends bytes between ranks 0..size()-1. Only one thread may use it, except for interrupt().
///
/// A new backend for CPUs consists of a subclass and a function that makes a HostCommunicator from it.
class Transport {
 public:
  /// `backend` must be a string literal, because it is not copied.
  Transport(int rank, int size, std::string_view backend);
  virtual ~Transport();
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  std::string_view backend() const { return backend_; }

  /// Sends sends[r] to rank r and receives recvs[r] from rank r, for all r except rank(), and returns when
  /// all messages are complete. An empty span sends nothing. The caller ensures that recvs[r] is as long as
  /// what rank r sends. At `deadline` it throws Error(kPeer), which names the missing ranks. It throws
  /// SecondaryError when a peer has announced a failure. Buffers are not accessed after a throw, unless a
  /// peer is reading or writing them at that moment and cannot be stopped.
  virtual void exchange(std::span<const ConstBytes> sends, std::span<const Bytes> recvs,
                        Deadline deadline) = 0;

  /// Split exchange() in two calls, so that other work can be done in between. The transport uses the buffers
  /// from begin() until the matching finish() returns. Several exchanges may be in flight; finish() waits for
  /// the oldest. All ranks begin and finish in the same order. exchange() does not wait for exchanges in
  /// flight.
  virtual void begin(std::span<const ConstBytes> sends, std::span<const Bytes> recvs);
  virtual void finish(Deadline deadline);

  /// Sums `data` (float32, bfloat16 or float16) over all ranks in place. The library chooses the order of the
  /// additions. Throws the same errors as exchange().
  virtual void all_reduce(Bytes data, DType dtype, Deadline deadline) = 0;

  /// Returns a transport between `members`, ascending ranks that include this one. Its messages are separate
  /// from those of this transport, which must outlive it. Collective over all ranks of this transport; each
  /// rank passes the group it belongs to. Throws the same errors as exchange().
  virtual std::unique_ptr<Transport> split(const std::vector<int>& members, Deadline deadline) = 0;

  /// Turns packing on or off: with it, long messages to other nodes are sent compressed (packed_words.h) if
  /// that makes them shorter. Each rank may choose for itself, between calls. A transport that is split off
  /// starts with its parent's setting.
  void pack_messages(bool on) { packs_ = on; }
  bool packs_messages() const { return packs_; }
  /// Bytes of all long messages to other nodes so far: before packing, and as they were sent. Any thread may
  /// read them, but the two numbers match only between calls.
  struct Traffic {
    std::uint64_t plain = 0, sent = 0;
  };
  Traffic traffic() const { return {plain_bytes_, sent_bytes_}; }

  /// Returns the ranks of this node that share memory, including this one.
  HostGroup& group() const { return *group_; }
  /// Returns, for every rank, the lowest rank on the same node.
  const std::vector<int>& hosts() const { return hosts_; }

  /// Tells the peers why this rank has failed. It tries only for a short time. The peers throw SecondaryError
  /// from their current or next exchange.
  virtual void announce(const std::string& reason) noexcept = 0;

  /// Makes the exchange in progress and all later ones throw soon. Any thread may call this.
  virtual void interrupt() noexcept = 0;

 protected:
  /// Returns the bytes to send to `peer` for `message`: the message itself, or a shorter packed copy in
  /// `memory`.
  ConstBytes outgoing(int peer, ConstBytes message, std::vector<std::byte>& memory);
  /// Unpacks or copies `came`, the received bytes, to `message`; both may start at the same address. Returns
  /// false if `came` is not a message of that length.
  bool incoming(ConstBytes came, Bytes message);
  [[noreturn]] void fail_length(int peer, std::size_t came, std::size_t room) const;
  /// Returns hosts() of a transport between `members`, in which ranks are numbered from 0 in that order.
  std::vector<int> hosts_among(const std::vector<int>& members) const;
  /// Implements all_reduce(): all ranks exchange all data and add it in the order of ranks.
  void all_reduce_by_exchange(Bytes data, DType dtype, Deadline deadline);
  /// Sets hosts() and group(). Before this call every rank counts as the only one of its node. All ranks pass
  /// the same hosts. A rank that remains alone passes a null group.
  void set_hosts(std::vector<int> hosts, std::unique_ptr<HostGroup> group);

 private:
  struct Begun {
    std::vector<ConstBytes> sends;
    std::vector<Bytes> recvs;
  };
  std::deque<Begun> begun_;
  int rank_;
  int size_;
  std::string_view backend_;
  std::vector<int> hosts_;
  std::unique_ptr<HostGroup> group_;
  bool packs_ = false;
  std::atomic<std::uint64_t> plain_bytes_ = 0, sent_bytes_ = 0;
  std::vector<std::byte> came_;  // copy of a packed message that is unpacked in place
};

}  // namespace trireme
