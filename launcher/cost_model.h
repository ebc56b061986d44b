// Computes how long an all-reduce takes over a given network, with closed formulas. All times are in seconds.
//
// A message of n bytes costs latency + n / bandwidth (R. Hockney, "The communication challenge for MPP",
// Parallel Computing 1994). The time that the sender's processor is busy is counted separately, as in LogGP
// (A. Alexandrov et al., SPAA 1995): a rank that sends to many peers pays it for each message, but the
// latency only once.
#pragma once

#include <array>
#include <span>
#include <string>
#include <string_view>

namespace trireme {

enum class AllReduce { kRing, kTree, kHierarchical, kOrdered };
inline constexpr std::array kAllReduces = {AllReduce::kRing, AllReduce::kTree, AllReduce::kHierarchical,
                                           AllReduce::kOrdered};
std::string_view name_of(AllReduce algorithm);

struct Link {
  double latency_s = 0;    ///< time until the first byte arrives
  double message_s = 0;    ///< time that each message keeps the sender's processor busy
  double bytes_per_s = 0;  ///< bandwidth of each direction
  double hop() const { return latency_s + message_s; }
};

struct Cluster {
  int ranks = 1;
  int ranks_per_host = 1;
  Link between;  ///< link of a host to the network; its ranks share it
  Link within;   ///< link of a rank to other ranks of its host
  /// Returns the number of hosts. The last host may have fewer ranks than the others.
  int hosts() const { return (ranks + ranks_per_host - 1) / ranks_per_host; }
  /// Returns the number of ranks on a full host.
  int ranks_of_host() const { return ranks < ranks_per_host ? ranks : ranks_per_host; }
};

/// Returns the network with the given name (10GbE, 100GbE, IB, NVLink+IB) or the given figures:
/// LATENCY,BANDWIDTH[,MESSAGE] such as "30us,10Gbit/s" or "2us,25GB/s,300ns". Sets the links and the ranks of
/// a host. Throws Error(kUsage) for any other text.
Cluster cluster_of(const std::string& link);

/// Returns the seconds of an all-reduce of a vector of `bytes` bytes on each rank. All ranks begin together.
/// W is the number of ranks, H the number of hosts, and B the bandwidth.
///
/// kRing sends 2(W-1) messages of bytes/W one after another, for a reduce-scatter and an all-gather (P.
/// Patarasuk, X. Yuan, "Bandwidth optimal all-reduce algorithms", JPDC 2009). Most neighbours share a host,
/// and each message takes as long as on the slowest link.
///
/// kTree is a two-tree reduction and broadcast (P. Sanders, J. Speck, J. Traeff, "Two-tree algorithms for
/// full bandwidth broadcast, reduction and scan", Parallel Computing 2009). Each is a pipeline of D stages
/// with the best number of blocks k: min over k of (D-1+k)(hop + bytes/(k B)). D is log2 of the hosts plus
/// one for each further rank of a host, because the ranks of a host form a chain.
///
/// kHierarchical is a ring reduce-scatter inside each host, rings of the slices between hosts, and a ring
/// all-gather inside each host (as in X. Jia et al., "Highly scalable deep learning training system", 2018,
/// 4.2).
///
/// kOrdered is Trireme's own algorithm (distributed/comm/host_sum.h). Ranks first agree, with a message to
/// each peer. Then the partial sums of slices go directly to the slices' owners and the sums directly back,
/// once for each host, in pieces. A host's link carries 2 bytes (H-1)/H, as in a ring of hosts. Latency
/// counts three times, not 2(H-1) times. The processor pays for W-1 messages, and 2(H-1) more for each piece.
double all_reduce_seconds(AllReduce algorithm, double bytes, const Cluster& cluster);

/// The size and duration of a measured all-reduce.
struct MeasuredSum {
  double bytes = 0, seconds = 0;
};
/// Returns the link between hosts for which the ordered all-reduce fits these measurements best, by least
/// squares. The link's message_s is assumed to be a tenth of its latency, because measurements with one
/// number of ranks cannot separate the two.
Link fit_link(std::span<const MeasuredSum> sums, const Cluster& cluster);

}  // namespace trireme
