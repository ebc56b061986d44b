// What became of a job, from what became of its ranks. Pure functions.
#pragma once

#include <span>
#include <string>

namespace trireme {

/// How one rank ended.
struct RankEnd {
  enum class How {
    kExited,  ///< value is its exit code
    kKilled,  ///< value is the signal
    kLost,    ///< its host or its guard went away
  };
  int rank = 0;
  How how = How::kExited;
  int value = 0;
  bool asked = false;  ///< an answer to a signal that the launcher had sent, not an event of its own
  std::string host;
};

struct Verdict {
  int exit_code = 0;
  std::string line;          ///< what happened; empty: nothing that needs a word
  bool by_exit = false;      ///< the line tells a rank's own exit code, of which it may have said more itself
  bool restartable = false;  ///< a lost or killed rank, or a peer's failure: not the job's own fault
  int dead = 0;              ///< ranks that a restart should do without
};

/// True for an end that the others cannot go on after: all but exit codes 0 and 75.
bool is_failure(const RankEnd& end);

/// `ends` in the order in which they were noticed. The first cause decides; "a peer failed" (5) is a
/// consequence of something else wherever something else is known: where a peer had to be killed because it
/// did not end even when it was told to, that peer is the lost one.
Verdict judge(std::span<const RankEnd> ends);

/// "signal 9 (SIGKILL)"
std::string signal_text(int number);

}  // namespace trireme
