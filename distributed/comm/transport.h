// What HostCommunicator needs from the outside world: point-to-point messages with a deadline.
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

/// A failure that began elsewhere: a consequence, never the cause. It is also what abort() leaves behind.
class SecondaryError : public Error {
 public:
  SecondaryError(int origin, const std::string& what) : Error(ExitCode::kPeer, what), origin_(origin) {}
  /// The rank on which the failure began.
  int origin() const { return origin_; }

 private:
  int origin_;
};

/// Moves bytes between ranks 0..size()-1. Used by one thread, save for interrupt().
///
/// A new backend for hosts is a class like this one and a function that makes a HostCommunicator of it.
class Transport {
 public:
  /// `backend` must be a literal.
  Transport(int rank, int size, std::string_view backend);
  virtual ~Transport();
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  std::string_view backend() const { return backend_; }

  /// Sends sends[r] to rank r and receives recvs[r] from it, for all r but the own rank, and returns when
  /// all of it is done. An empty span moves nothing. Sizes were agreed by the caller: recvs[r] here is as
  /// long as what rank r sends. Throws Error(kPeer) naming the ranks it still waits for at `deadline`,
  /// SecondaryError when a peer has announced a failure. Buffers are not touched after a throw, except
  /// where a peer is already in the middle of reading or writing them and cannot be called back.
  virtual void exchange(std::span<const ConstBytes> sends, std::span<const Bytes> recvs,
                        Deadline deadline) = 0;

  /// The same in two parts, so that other work fits between them: buffers belong to the transport from
  /// begin() on, until the finish() that returns from it. Several may have begun; finish() is for the oldest.
  /// All ranks begin and finish in the same order, and exchange() waits for none that has begun.
  virtual void begin(std::span<const ConstBytes> sends, std::span<const Bytes> recvs);
  virtual void finish(Deadline deadline);

  /// Sums `data` (float32, bfloat16 or float16) over ranks in place, in the order the library likes best.
  /// Throws as exchange() does.
  virtual void all_reduce(Bytes data, DType dtype, Deadline deadline) = 0;

  /// Messages between `members`, ascending ranks of which this is one, apart from those sent here. Collective
  /// over all ranks of this transport, each with the members it belongs with. Throws as exchange() does. This
  /// one outlives it.
  virtual std::unique_ptr<Transport> split(const std::vector<int>& members, Deadline deadline) = 0;

  /// Whether long messages to other hosts travel packed (packed_words.h), where that makes them shorter. Each
  /// rank may choose for itself, between calls; a group that is split off begins with its parent's choice.
  void pack_messages(bool on) { packs_ = on; }
  bool packs_messages() const { return packs_; }
  /// Bytes of long messages to other hosts so far: as they were, and as they travelled. Any thread may ask,
  /// but both are of one moment only between calls.
  struct Traffic {
    std::uint64_t plain = 0, sent = 0;
  };
  Traffic traffic() const { return {plain_bytes_, sent_bytes_}; }

  /// The ranks of this host that share memory, this one among them.
  HostGroup& group() const { return *group_; }
  /// By rank: the lowest rank of its host.
  const std::vector<int>& hosts() const { return hosts_; }

  /// Tells the peers why this rank has failed, as well as it can within a moment. They throw
  /// SecondaryError from the exchange they are in, or from their next one.
  virtual void announce(const std::string& reason) noexcept = 0;

  /// Makes the exchange in progress and all later ones throw soon. May be called by any thread.
  virtual void interrupt() noexcept = 0;

 protected:
  /// What travels to `peer` in place of `message`: the message, or itself packed in `memory`, and shorter
  /// then.
  ConstBytes outgoing(int peer, ConstBytes message, std::vector<std::byte>& memory);
  /// `came` is what has come in place of a message, perhaps to where the message belongs: makes it the
  /// message. False if it is none of that length.
  bool incoming(ConstBytes came, Bytes message);
  [[noreturn]] void fail_length(int peer, std::size_t came, std::size_t room) const;
  /// Of `members`, as their group will be numbered: by rank, the lowest rank of its host.
  std::vector<int> hosts_among(const std::vector<int>& members) const;
  /// all_reduce() by an exchange of everything, rank after rank.
  void all_reduce_by_exchange(Bytes data, DType dtype, Deadline deadline);
  /// Until this is called each rank is alone on its host. All ranks call it with the same hosts, and null
  /// where a rank stays alone.
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
  std::vector<std::byte> came_;  // a copy, while it is unpacked where it lay
};

}  // namespace trireme
