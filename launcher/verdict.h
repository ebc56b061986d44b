// Pure functions that decide how a job ended from how its ranks ended.
#pragma once

#include <span>
#include <string>

namespace trireme {

/// How one rank ended.
struct RankEnd {
  enum class How {
    kExited,  ///< the program exited; `value` is its exit code
    kKilled,  ///< a signal killed the program; `value` is the signal's number
    kLost,    ///< the rank's host or guard went away
  };
  int rank = 0;
  How how = How::kExited;
  int value = 0;
  bool asked = false;  ///< the rank ended by or after a signal that was passed on to it
  std::string host;
};

/// How a job ended.
struct Verdict {
  int exit_code = 0;
  std::string line;          ///< message for the user; empty: there is nothing to report
  bool by_exit = false;      ///< `line` is about a rank's exit code; the rank may have printed the reason
  bool restartable = false;  ///< the cause is a lost or killed rank or a failed peer
  int dead = 0;              ///< number of ranks that a restart should leave out
};

/// Returns true if the other ranks cannot go on after this end: any except exit codes 0 and 75.
bool is_failure(const RankEnd& end);

/// Returns the verdict on a job whose ranks ended in the order of `ends`. The first cause decides. An exit
/// with code 5 ("a peer failed") is a consequence, so it decides only if no other cause is known. In that
/// case, ranks that did not end when told to and had to be killed count as the lost ones.
Verdict judge(std::span<const RankEnd> ends);

/// Returns the name of a signal, such as "signal 9 (SIGKILL)".
std::string signal_text(int number);

}  // namespace trireme
