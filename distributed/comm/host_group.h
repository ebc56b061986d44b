// HostGroup connects the ranks of one node through memory that they share.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "distributed/comm/agreement.h"
#include "distributed/comm/transport.h"

namespace trireme {

/// Memory that all ranks of a group can access, each at its own address.
class VisibleMemory {
 public:
  virtual ~VisibleMemory() = default;
  /// Allocates uninitialized memory of this rank, aligned to 4096 bytes. Returns null if none is left. Any
  /// thread may call this and release the memory.
  virtual std::shared_ptr<std::byte> allocate(std::size_t bytes) = 0;
  /// Returns the name by which peers find this rank's memory, or nothing if they cannot access it.
  virtual std::optional<std::uint64_t> name_of(const void* memory) const = 0;
  /// Returns this rank's address of the memory that group member number `member` names `name`.
  virtual std::byte* find(std::size_t member, std::uint64_t name) const = 0;
  /// Stops the reuse of released memory for the life of this object. It is called after a failure during a
  /// sum, because a peer that has not noticed the failure may still read and write this rank's memory.
  void keep_all() noexcept { keeps_all_ = true; }

 protected:
  bool keeps_all() const { return keeps_all_; }

 private:
  std::atomic<bool> keeps_all_ = false;
};

/// The data that one rank publishes to its group, in memory that all members can access.
struct Board {
  static constexpr std::size_t kCardBytes = 4096;
  alignas(64) std::atomic<std::uint64_t> meetings;
  alignas(64) std::atomic<std::uint32_t> failed;
  std::int32_t origin;            ///< the rank on which the failure began
  std::array<char, 1016> reason;  ///< terminated by a zero; written before `failed`, as `origin` is
  // A member that has arrived at meeting n + 1 has read all cards of meeting n, so two cards are enough.
  alignas(64) std::array<std::array<std::byte, kCardBytes>, 2> cards;
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free &&
              std::atomic<std::uint32_t>::is_always_lock_free);

/// The ranks of one node that share memory, as one of them uses it. Only one thread may use it, except for
/// allocate(), announce() and interrupt().
class HostGroup {
 public:
  struct Member {
    int rank;
    Board* board;
  };
  /// `members` must be in the order of their ranks and the same on all members. Boards must be zero at first
  /// and live as long as `memory`.
  HostGroup(std::vector<Member> members, int rank, std::shared_ptr<VisibleMemory> memory);

  std::size_t size() const { return members_.size(); }
  std::size_t self() const { return self_; }
  int rank_of(std::size_t member) const { return members_[member].rank; }
  VisibleMemory& memory() const { return *memory_; }

  /// Returns the card that this rank fills before the next meeting, for all members to read. It begins with
  /// room for a CallHeader.
  std::span<std::byte, Board::kCardBytes> own_card() { return members_[self_].board->cards[next_ % 2]; }
  /// Waits until all members have called this. All writes that a member made before, to its card or to other
  /// shared memory, are visible to all afterwards. Throws the same errors as Transport::exchange().
  void meet(Deadline deadline);
  /// Meets like meet(), with `call` on this rank's card. Throws Error(kPeer) on all members if they are not
  /// in the same call.
  void meet_in(const CallHeader& call, Deadline deadline);
  /// Returns a member's card of the last meeting, which is valid until the next meeting.
  ConstBytes card_of(std::size_t member) const { return members_[member].board->cards[(next_ - 1) % 2]; }

  /// Tells the other members of a failure that began on rank `origin`, which may be on another node.
  void announce(const std::string& reason, int origin) noexcept;
  void interrupt() noexcept { interrupted_ = true; }
  /// Throws the failure that a member has announced, if there is one.
  void check_members() const;

 private:
  std::vector<Member> members_;
  std::size_t self_ = 0;
  std::shared_ptr<VisibleMemory> memory_;
  std::uint64_t next_ = 1;  ///< number of the next meeting
  std::atomic<bool> interrupted_ = false;
};

/// Returns one HostGroup for each of `ranks`, which are threads of this process.
std::vector<std::unique_ptr<HostGroup>> make_thread_groups(const std::vector<int>& ranks);

}  // namespace trireme
