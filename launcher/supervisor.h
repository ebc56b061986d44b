// One run of a job's ranks: from starting them to knowing how all of them ended.
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
/// - Ranks run only once all of them are there; those that are late after `patience` end the job.
/// - SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2 and SIGXCPU are passed on to each rank's program (and its
///   process group) as they are, once. After the first three the ranks have `patience` to end; a second
///   SIGINT kills them at once. Before the ranks run, each of them ends the job, the
///   last three with exit code 75.
/// - Whatever ranks print is passed on as fast as our standard output takes it. Where that is closed, the
///   ranks go on, and a job that ends well ends with exit code 1.
/// - When a rank fails the others have two seconds to end by themselves, two more after SIGTERM, and
///   are then killed.
/// Not thread-safe. The process must be a child subreaper with those signals and SIGCHLD blocked.
class Supervisor {
 public:
  /// `signals`: a non-blocking signalfd for the signals above and SIGCHLD, owned by the caller.
  Supervisor(const StartPlan& plan, std::chrono::milliseconds patience, int signals);
  ~Supervisor();
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;

  /// Call once. Error(kUsage) when the starter (mpirun, srun) cannot be run.
  Verdict run();

  bool stop_requested() const { return stop_signal_ != 0; }
  /// Returns the numbers of the ranks that were lost with their host or guard.
  std::vector<int> lost_ranks() const;

 private:
  enum class Late { kNothing, kStart, kTerminate, kKill, kGiveUp };  ///< what to do at the deadline
  struct Peer {
    std::unique_ptr<LineSocket> socket;
    int rank = -1;  ///< -1: has not said hello
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
  pid_t starter_ = 0;  ///< mpirun, srun, or the one guard; 0: not running
  int errors_ = -1;    ///< the starter's standard error; -1: ours
  std::string early_errors_;
  int outputs_ = -1;          ///< the starter's standard output; -1: ours
  std::string output_;        ///< read there, and not written yet
  bool output_lost_ = false;  ///< nobody reads our standard output any more
  BannerFilter filter_;
  bool ranks_spoke_ = false;  ///< on standard error, or may have
  std::vector<Peer> peers_;
  std::vector<RankEnd> ends_;
  std::optional<Verdict> own_verdict_;  ///< what the launcher itself saw, where ranks tell nothing
  int stop_signal_ = 0;
  int greeted_ = 0;
  bool running_ = false;  ///< the ranks have been told to go
  bool over_ = false;
  Late late_ = Late::kNothing;
  std::chrono::steady_clock::time_point deadline_;
};

}  // namespace trireme
