// Runs a job's ranks once: starts them, and waits until it knows how each of them ended.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "launcher/banner_filter.h"
#include "launcher/control.h"
#include "launcher/start_plan.h"
#include "launcher/verdict.h"

namespace trireme {

/// Starts the ranks, waits for all of them, and leaves no process behind.
///
/// - The program starts on all ranks once all guards have connected. If some have not after `patience`, the
///   job ends.
/// - SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2 and SIGXCPU are passed on unchanged to the process group of
///   each rank's program, at most once each. After one of the first three, the ranks must end within
///   `patience`. A second SIGINT kills them at once. Before the ranks run, each of these signals ends the
///   job, the last three with exit code 75.
/// - The ranks' output is written to the launcher's standard output as fast as that accepts it. If standard
///   output is closed, the ranks go on, and a job that succeeds ends with exit code 1.
/// - When a rank fails, the others have two seconds to end by themselves and two more after SIGTERM. Then
///   they are killed.
///
/// Not thread-safe. The process must be a child subreaper with those signals and SIGCHLD blocked.
class Supervisor {
 public:
  /// `signals` is a non-blocking signalfd for the signals above and SIGCHLD. The caller owns it.
  Supervisor(const StartPlan& plan, std::chrono::milliseconds patience, int signals);
  ~Supervisor();
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;

  /// Runs the job until all ranks have ended and returns its verdict. Call this once. Throws Error(kUsage) if
  /// the starter (mpirun, srun) cannot be run.
  Verdict run();

  /// Returns true if SIGINT, SIGTERM or SIGHUP has asked the job to stop. It must not be restarted then.
  bool stop_requested() const { return stop_signal_ != 0; }
  /// Returns the numbers of the ranks that were lost with their host or guard.
  std::vector<int> lost_ranks() const;

 private:
  enum class Late { kNothing, kStart, kTerminate, kKill, kGiveUp };  ///< the action at deadline_
  struct Peer {
    std::unique_ptr<LineSocket> socket;
    int rank = -1;  ///< -1 until the peer's hello line arrives
    std::string host;
    bool ended = false;
  };

  void start();
  void wait_once();
  void take_signals();
  void take_signal(int number);
  void take_starter_end();
  void take_errors();
  void take_output();
  void pass_output_on();
  void show_errors(std::string_view text);
  void take_lines(Peer& peer);
  void take_line(Peer& peer, std::string_view line);
  void greet(Peer& peer, std::string_view rest);
  void note_end(Peer& peer, RankEnd::How how, int value, bool asked);
  void lose(Peer& peer);
  void expire();
  void arm(Late what, std::chrono::milliseconds after);
  void send_all(const std::string& line);
  void kill_all();
  void close_down();
  Verdict conclude() const;

  StartPlan plan_;
  std::chrono::milliseconds patience_;
  int signals_;
  ControlServer server_;
  pid_t starter_ = 0;         ///< process id of mpirun, srun or the only guard; 0: not running
  int errors_ = -1;           ///< pipe from the starter's standard error; -1: there is none
  std::string early_errors_;  ///< text from errors_ before the ranks ran
  int outputs_ = -1;          ///< pipe from the starter's standard output; -1: there is none
  std::string output_;        ///< text from outputs_ that has not been written yet
  bool output_lost_ = false;  ///< the launcher's standard output cannot be written any more
  BannerFilter filter_;
  bool ranks_spoke_ = false;  ///< ranks have written to standard error, or may have
  std::vector<Peer> peers_;
  std::vector<RankEnd> ends_;
  std::optional<Verdict> own_verdict_;  ///< the launcher's own, used unless a rank failed by itself
  int stop_signal_ = 0;                 ///< the last signal that asked the job to stop; 0: none
  int greeted_ = 0;                     ///< number of ranks that have said hello
  bool running_ = false;                ///< "go" has been sent to the ranks
  bool over_ = false;                   ///< run() need not wait any longer
  Late late_ = Late::kNothing;
  std::chrono::steady_clock::time_point deadline_;
};

}  // namespace trireme
