#include "distributed/comm/agreement.h"

#include <algorithm>
#include <vector>

#include "kernels/error.h"

namespace trireme {

namespace {

// FNV-1a: a hash that is the same in every process.
std::uint64_t hash_of(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

std::string describe(int rank, const CallHeader& call) {
  std::string text = fmt::format("rank {} is in {} of \"{}\", call {}, ", rank, name_of(call.op),
                                 call.label.data(), call.sequence);
  if (call.root >= 0)
    text += fmt::format("{} {}, ", call.op == Collective::kSum ? "shards" : "root", call.root);
  if (call.total_bytes > 0) text += fmt::format("{} bytes in all, ", call.total_bytes);
  return text + fmt::format("sends {} bytes and expects {}", call.sends_bytes, call.expects_bytes);
}

}  // namespace

std::string_view name_of(Collective op) {
  switch (op) {
    case Collective::kAllToAll:
      return "all_to_all";
    case Collective::kAllGather:
      return "all_gather";
    case Collective::kAllReduceFastest:
      return "all_reduce_fastest";
    case Collective::kBroadcast:
      return "broadcast";
    case Collective::kBarrier:
      return "barrier";
    case Collective::kSum:
      return "sum";
  }
  return "?";
}

void CallHeader::set_label(std::string_view text) {
  label_hash = hash_of(text);
  label.fill('\0');
  std::copy_n(text.begin(), std::min(text.size(), label.size() - 1), label.begin());
}

void check_agreement(int rank, const CallHeader& mine, int peer, const CallHeader& theirs) {
  const bool same = mine.sequence == theirs.sequence && mine.op == theirs.op && mine.root == theirs.root &&
                    mine.total_bytes == theirs.total_bytes && mine.label_hash == theirs.label_hash &&
                    mine.sends_bytes == theirs.expects_bytes && mine.expects_bytes == theirs.sends_bytes;
  if (same) return;
  fail(ExitCode::kPeer,
       "ranks {} and {} disagree: {}; {}; all ranks must make the same calls in the same order", rank, peer,
       describe(rank, mine), describe(peer, theirs));
}

void swap_frames(Transport& transport, const std::function<const Frame&(int rank)>& frame_for,
                 std::span<Frame> theirs, Deadline deadline) {
  std::vector<ConstBytes> sends(theirs.size());
  std::vector<Bytes> recvs(theirs.size());
  const int self = transport.rank(), ranks = transport.size();
  for (int peer = 0; peer < ranks; ++peer) {
    if (peer == self) continue;
    sends[peer] = std::as_bytes(std::span(&frame_for(peer), 1));
    recvs[peer] = std::as_writable_bytes(theirs.subspan(peer, 1));
  }
  transport.exchange(sends, recvs, deadline);
  for (int peer = 0; peer < ranks; ++peer)
    if (peer != self) check_agreement(self, frame_for(peer).header, peer, theirs[peer].header);
}

}  // namespace trireme
