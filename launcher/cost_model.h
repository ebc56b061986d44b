// What an all-reduce costs over a given network: closed forms, no measuring. All times in seconds.
//
// The cost of a message of n bytes is Hockney's, latency + n / bandwidth (R. Hockney, "The communication
// challenge for MPP", Parallel Computing 1994), with the time that the sender's processor is busy kept apart,
// as in LogGP (A. Alexandrov et al., SPAA 1995), because one that sends to many peers pays that for each and
// latency once.
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
  double latency_s = 0;    ///< until the first byte is there
  double message_s = 0;    ///< of the sender's processor, for each message
  double bytes_per_s = 0;  ///< each way
  double hop() const { return latency_s + message_s; }
};

struct Cluster {
  int ranks = 1;
  int ranks_per_host = 1;
  Link between;  ///< of a host, which its ranks share
  Link within;   ///< of a rank to others of its host
  /// The last host may not be full.
  int hosts() const { return (ranks + ranks_per_host - 1) / ranks_per_host; }
  /// Of a full host.
  int ranks_of_host() const { return ranks < ranks_per_host ? ranks : ranks_per_host; }
};

/// A network by name (10GbE, 100GbE, IB, NVLink+IB), or by figures: LATENCY,BANDWIDTH[,MESSAGE] such as
/// "30us,10Gbit/s" or "2us,25GB/s,300ns". Sets the links and the ranks of a host. Error(kUsage) for others.
Cluster cluster_of(const std::string& link);

/// Of a vector of `bytes`, one rank's own; all ranks begin together.
///
/// ring: 2(W-1) messages of bytes/W, one after another: reduce-scatter and all-gather (P. Patarasuk, X. Yuan,
/// "Bandwidth optimal all-reduce algorithms", JPDC 2009). Neighbours are mostly of one host, so each message
/// goes at the pace of the slowest edge.
///
/// tree: two-tree reduction and broadcast (P. Sanders, J. Speck, J. Traeff, "Two-tree algorithms for full
/// bandwidth broadcast, reduction and scan", Parallel Computing 2009): a pipeline of D stages, twice, each at
/// the best number of blocks k, min over k of (D-1+k)(hop + bytes/(k B)). D is log2 of the hosts, and one for
/// each further rank of a host, which form a chain.
///
/// hierarchical: a ring reduce-scatter inside each host, rings of the slices between hosts, a ring all-gather
/// inside (as in X. Jia et al., "Highly scalable deep learning training system", 2018, 4.2).
///
/// ordered: Trireme's own (distributed/comm/host_sum.h): ranks agree (a message to each peer), partials of
/// slices go straight to the slices' owners and the sums straight back, once for each host, in pieces. 2
/// bytes (H-1)/H over the host's link, as a ring of hosts; latency three times, not 2(H-1) times; but (W-1) +
/// 2(H-1) messages a piece for the processor.
double all_reduce_seconds(AllReduce algorithm, double bytes, const Cluster& cluster);

/// A sum that was measured.
struct MeasuredSum {
  double bytes = 0, seconds = 0;
};
/// The link between hosts with which the ordered all-reduce comes nearest to these sums, by least squares. A
/// message's own time is taken to be a tenth of latency: sums over one number of ranks do not tell them
/// apart.
Link fit_link(std::span<const MeasuredSum> sums, const Cluster& cluster);

}  // namespace trireme
