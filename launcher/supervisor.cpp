#include "launcher/supervisor.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cstring>
#include <utility>

#include "kernels/error.h"

namespace trireme {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr seconds kGrace{2};                  // time from a failure to SIGTERM, and from there to SIGKILL
constexpr seconds kGiveUpAfter{8};            // longer than TCP takes to notice a lost host
constexpr std::size_t kMostOutput = 1 << 20;  // bytes of output to hold for a slow reader

void show(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(STDERR_FILENO, text.data(), text.size());
    if (written < 0 && errno != EINTR) return;
    if (written > 0) text.remove_prefix(static_cast<size_t>(written));
  }
}

/// Removes the first word from `rest` and returns it.
std::string_view word(std::string_view* rest) {
  const std::string_view first = rest->substr(0, rest->find(' '));
  rest->remove_prefix(std::min(rest->size(), first.size() + 1));
  return first;
}

int number(std::string_view text) {
  int value = -1;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

std::string how_it_ended(const std::string& name, int status) {
  return WIFSIGNALED(status) ? fmt::format("{} was killed by {}", name, signal_text(WTERMSIG(status)))
                             : fmt::format("{} ended with exit code {}", name, WEXITSTATUS(status));
}

Verdict peer_failure(std::string line) {
  return {.exit_code = static_cast<int>(ExitCode::kPeer),
          .line = std::move(line),
          .restartable = true,
          .dead = 0};
}

Verdict cannot_start(std::string line) {
  return {.exit_code = static_cast<int>(ExitCode::kUsage),
          .line = std::move(line),
          .restartable = false,
          .dead = 0};
}

}  // namespace

Supervisor::Supervisor(const StartPlan& plan, milliseconds patience, int signals)
    : plan_(plan), patience_(patience), signals_(signals), server_(plan.outside) {}

Supervisor::~Supervisor() {
  peers_.clear();  // this closes the connections, after which guards kill the processes that they started
  kill_descendants();
  if (errors_ >= 0) close(errors_);
  if (outputs_ >= 0) close(outputs_);
}

Verdict Supervisor::run() {
  start();
  while (!over_) wait_once();
  close_down();
  Verdict verdict = conclude();
  if (output_lost_ && verdict.exit_code == 0) {
    verdict.exit_code = static_cast<int>(ExitCode::kInternal);
    verdict.line = "standard output could not be written; the output is incomplete";
  }
  return verdict;
}

std::vector<int> Supervisor::lost_ranks() const {
  std::vector<int> ranks;
  for (const RankEnd& end : ends_) {
    if (end.how == RankEnd::How::kLost && !end.asked) ranks.push_back(end.rank);
  }
  return ranks;
}

void Supervisor::start() {
  int errors[2] = {-1, -1}, outputs[2] = {-1, -1};
  // The only guard of the local backend needs no pipe: its standard streams carry nothing but the program's
  // text.
  const bool through_pipe = plan_.command.front() == "mpirun" || plan_.command.front() == "srun";
  if (through_pipe && (pipe2(errors, O_CLOEXEC) != 0 || pipe2(outputs, O_CLOEXEC) != 0)) {
    fail(ExitCode::kUsage, "cannot make a pipe: {}", std::strerror(errno));
  }
  errors_ = errors[0];
  // mpirun dies if its standard output is closed, so it writes to a pipe of the launcher.
  outputs_ = outputs[0];
  if (outputs_ >= 0) fcntl(outputs_, F_SETFL, O_NONBLOCK);
  // A process that inherits the pipe's other end may outlive mpirun and keep it open, so reads must not
  // block.
  if (errors_ >= 0) fcntl(errors_, F_SETFL, O_NONBLOCK);
  ranks_spoke_ = !through_pipe;  // assume that they did, because there is no pipe
  Spawn options;
  options.command = plan_.command;
  options.env = plan_.env;
  options.env[kControlVariable] = server_.contact();
  options.errors = errors[1];
  options.output = outputs[1];
  options.death_signal = SIGTERM;  // mpirun then removes its session directory
  starter_ = spawn(options);
  if (errors[1] >= 0) close(errors[1]);
  if (outputs[1] >= 0) close(outputs[1]);
  arm(Late::kStart, patience_);
}

void Supervisor::wait_once() {
  std::vector<pollfd> ready = {{signals_, POLLIN, 0},
                               {server_.fd(), POLLIN, 0},
                               {errors_, POLLIN, 0},
                               {output_.size() < kMostOutput ? outputs_ : -1, POLLIN, 0},
                               {output_.empty() ? -1 : STDOUT_FILENO, POLLOUT, 0}};
  const std::size_t first_peer = ready.size();
  for (const Peer& peer : peers_) ready.push_back({peer.socket ? peer.socket->fd() : -1, POLLIN, 0});
  int timeout = -1;
  if (late_ != Late::kNothing) {
    const auto left = std::chrono::ceil<milliseconds>(deadline_ - Clock::now()).count();
    timeout = static_cast<int>(std::max<long long>(0, left));
  }
  const int count = poll(ready.data(), ready.size(), timeout);
  if (count < 0) return;
  if (late_ != Late::kNothing && Clock::now() >= deadline_) return expire();
  if (ready[2].revents) take_errors();
  if (ready[3].revents) take_output();
  if (ready[4].revents) pass_output_on();
  for (size_t i = first_peer; i < ready.size(); ++i) {
    if (ready[i].revents) take_lines(peers_[i - first_peer]);
  }
  if (ready[1].revents) {
    if (auto socket = server_.accept()) peers_.push_back({std::move(socket), -1, "", false});
  }
  if (ready[0].revents) take_signals();
  if (static_cast<int>(ends_.size()) == plan_.processes) over_ = true;
}

void Supervisor::take_signals() {
  signalfd_siginfo info;
  while (read(signals_, &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
    if (info.ssi_signo == SIGCHLD) {
      take_starter_end();
    } else {
      take_signal(static_cast<int>(info.ssi_signo));
    }
  }
}

void Supervisor::take_signal(int number) {
  const bool stop = number == SIGINT || number == SIGTERM || number == SIGHUP;
  const bool again = number == SIGINT && stop_signal_ == SIGINT;
  if (stop) stop_signal_ = number;
  if (!running_) {
    // Other signals come from a scheduler before its time limit. The job has not begun, so nothing is lost:
    // it ends with exit code 75, and the same command runs it later.
    const int code = stop ? 128 + number : static_cast<int>(ExitCode::kStopped);
    own_verdict_ = {.exit_code = code, .line = "", .restartable = false, .dead = 0};
    over_ = true;
  } else if (again) {
    own_verdict_ = {.exit_code = 128 + number, .line = "", .restartable = false, .dead = 0};
    kill_all();
  } else {
    send_all(fmt::format("signal {}", number));
    if (stop && late_ == Late::kNothing) arm(Late::kKill, patience_);
  }
}

void Supervisor::take_starter_end() {
  int status = 0;
  if (starter_ <= 0 || waitpid(starter_, &status, WNOHANG) != starter_) return;
  starter_ = 0;
  const std::string& name = plan_.command.front();
  if (errors_ >= 0) take_errors();
  if (!running_) {
    std::string why = first_telling_line(early_errors_);
    own_verdict_ = cannot_start(
        fmt::format("cannot start the ranks: {}", why.empty() ? how_it_ended(name, status) : why));
    over_ = true;
    return;
  }
  // Guards that are alive answer the kill at once. Ranks whose guards do not answer count as lost.
  own_verdict_ = peer_failure(fmt::format("{} while ranks were running", how_it_ended(name, status)));
  kill_all();
}

void Supervisor::take_errors() {
  char chunk[16384];
  const ssize_t got = read(errors_, chunk, sizeof chunk);
  if (got < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (got <= 0) {
    close(errors_);
    errors_ = -1;
    return;
  }
  const std::string_view piece(chunk, static_cast<size_t>(got));
  if (running_) {
    show_errors(filter_.feed(piece));
  } else if (early_errors_.size() < 65536) {
    early_errors_ += piece;  // no rank runs yet, so this text is from mpirun or srun
  }
}

void Supervisor::take_output() {
  char chunk[65536];
  const ssize_t got = read(outputs_, chunk, sizeof chunk);
  if (got < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (got <= 0) {
    close(outputs_);
    outputs_ = -1;
    return;
  }
  if (!output_lost_) output_.append(chunk, static_cast<size_t>(got));
}

void Supervisor::pass_output_on() {
  // Writing at most PIPE_BUF bytes to a pipe that is ready does not block.
  const ssize_t written = write(STDOUT_FILENO, output_.data(), std::min<size_t>(output_.size(), PIPE_BUF));
  if (written >= 0) {
    output_.erase(0, static_cast<size_t>(written));
  } else if (errno != EINTR && errno != EAGAIN) {
    output_lost_ = true;
    output_.clear();
  }
}

void Supervisor::show_errors(std::string_view text) {
  ranks_spoke_ = ranks_spoke_ || !text.empty();
  show(text);
}

void Supervisor::take_lines(Peer& peer) {
  std::vector<std::string> lines;
  const bool alive = peer.socket->receive(&lines);
  for (const std::string& line : lines) {
    if (peer.socket) take_line(peer, line);
  }
  if (!alive && peer.socket) lose(peer);
}

void Supervisor::take_line(Peer& peer, std::string_view line) {
  const std::string_view kind = word(&line);
  if (peer.rank < 0) {
    if (kind == "hello") greet(peer, line);
    if (peer.rank < 0) peer.socket.reset();  // not a guard of this job
  } else if (kind == "failed") {
    own_verdict_ = cannot_start(std::string(line));
    over_ = true;
  } else if (kind == "exit" || kind == "killed") {
    const int value = number(word(&line));
    note_end(peer, kind == "exit" ? RankEnd::How::kExited : RankEnd::How::kKilled, value, line == "1");
  }
}

void Supervisor::greet(Peer& peer, std::string_view rest) {
  if (word(&rest) != server_.token()) return;
  const int rank = number(word(&rest));
  const bool taken =
      std::any_of(peers_.begin(), peers_.end(), [&](const Peer& other) { return other.rank == rank; });
  if (rank < 0 || rank >= plan_.processes || taken) return;
  peer.rank = rank;
  peer.host = rest;
  if (++greeted_ < plan_.processes) return;
  running_ = true;
  if (stop_signal_ == 0) arm(Late::kNothing, milliseconds(0));
  send_all("go");
}

void Supervisor::note_end(Peer& peer, RankEnd::How how, int value, bool asked) {
  if (peer.ended) return;
  peer.ended = true;
  ends_.push_back({.rank = peer.rank, .how = how, .value = value, .asked = asked, .host = peer.host});
  if (late_ != Late::kNothing) return;
  if (is_failure(ends_.back()) && !asked) {
    arm(Late::kTerminate, kGrace);
  } else if (how == RankEnd::How::kExited && value == static_cast<int>(ExitCode::kStopped)) {
    arm(Late::kKill, patience_);  // the others are stopping too
  }
}

void Supervisor::lose(Peer& peer) {
  peer.socket.reset();
  if (peer.rank >= 0) note_end(peer, RankEnd::How::kLost, 0, false);
}

void Supervisor::expire() {
  const auto left = plan_.processes - static_cast<int>(ends_.size());
  switch (late_) {
    case Late::kNothing:
      break;
    case Late::kStart:
      own_verdict_ =
          peer_failure(fmt::format("only {} of {} ranks were there after {:g} s: give a longer --patience",
                                   greeted_, plan_.processes, patience_.count() / 1e3));
      over_ = true;
      break;
    case Late::kTerminate:
      send_all(fmt::format("signal {}", SIGTERM));
      arm(Late::kKill, kGrace);
      break;
    case Late::kKill:
      if (stop_signal_ && !own_verdict_) {
        own_verdict_ =
            peer_failure(fmt::format("{} of {} ranks had not ended {:g} s after {}: killed", left,
                                     plan_.processes, patience_.count() / 1e3, signal_text(stop_signal_)));
      }
      kill_all();
      break;
    case Late::kGiveUp:
      for (Peer& peer : peers_) {
        if (!peer.ended) lose(peer);
      }
      over_ = true;
      break;
  }
}

void Supervisor::arm(Late what, milliseconds after) {
  late_ = what;
  deadline_ = Clock::now() + after;
}

void Supervisor::send_all(const std::string& line) {
  for (Peer& peer : peers_) {
    if (peer.rank >= 0 && peer.socket) peer.socket->send(line);
  }
}

void Supervisor::kill_all() {
  send_all(fmt::format("signal {}", SIGKILL));
  arm(Late::kGiveUp, kGiveUpAfter);
}

void Supervisor::close_down() {
  send_all("bye");
  peers_.clear();
  if (starter_ > 0 && !running_) kill(starter_, SIGTERM);  // it may be waiting for a host
  // The output of all ranks is complete only when the starter has closed its pipes.
  const auto end = Clock::now() + seconds(5);
  const auto is_open = [&] { return errors_ >= 0 || outputs_ >= 0; };
  // Wait for a slow reader of standard output without a time limit, until a signal ends the wait.
  for (bool told = false; !told && (!output_.empty() || (is_open() && Clock::now() < end));) {
    pollfd ready[] = {{errors_, POLLIN, 0},
                      {output_.size() < kMostOutput ? outputs_ : -1, POLLIN, 0},
                      {output_.empty() ? -1 : STDOUT_FILENO, POLLOUT, 0}};
    if (poll(ready, 3, 100) < 0) continue;
    if (ready[0].revents) take_errors();
    if (ready[1].revents) take_output();
    if (ready[2].revents) pass_output_on();
    signalfd_siginfo info;
    while (read(signals_, &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
      const auto number = static_cast<int>(info.ssi_signo);
      if (number != SIGINT && number != SIGTERM && number != SIGHUP) continue;
      stop_signal_ = number;  // prevents a restart of the job
      told = true;
    }
  }
  output_lost_ = output_lost_ || !output_.empty();
  if (starter_ > 0 && is_open()) kill(starter_, SIGTERM);
  for (int i = 0; i < 200 && starter_ > 0 && waitpid(starter_, nullptr, WNOHANG) == 0; ++i) {
    poll(nullptr, 0, 10);
  }
  starter_ = 0;
  show_errors(filter_.finish());
}

Verdict Supervisor::conclude() const {
  const bool known = std::any_of(ends_.begin(), ends_.end(),
                                 [](const RankEnd& end) { return is_failure(end) && !end.asked; });
  if (own_verdict_ && !known) return *own_verdict_;
  Verdict verdict = judge(ends_);
  if (verdict.by_exit && ranks_spoke_) verdict.line.clear();
  return verdict;
}

}  // namespace trireme
