#include "launcher/verdict.h"

#include <fmt/ranges.h>
#include <signal.h>
#include <string.h>

#include <algorithm>
#include <vector>

#include "kernels/error.h"

namespace trireme {
namespace {

constexpr int kPeer = static_cast<int>(ExitCode::kPeer);
constexpr int kStopped = static_cast<int>(ExitCode::kStopped);

bool vanished(const RankEnd& end) { return !end.asked && end.how != RankEnd::How::kExited; }

bool exited_with(const RankEnd& end, int code) {
  return end.how == RankEnd::How::kExited && end.value == code;
}

/// Returns true if the end can be the cause of others: not a success, not a stop, not "a peer failed", and
/// not the answer to a signal of the launcher.
bool is_cause(const RankEnd& end) { return !end.asked && is_failure(end) && !exited_with(end, kPeer); }

std::string exit_text(const RankEnd& end) {
  return fmt::format("rank {} exited with code {}", end.rank, end.value);
}

/// Returns the verdict if the first failure is `told`, a rank that gave up waiting for a peer. A live rank
/// gives up as well, or ends on SIGTERM, before it is killed. So ranks that had to be killed are the dead
/// ones.
Verdict judge_peer_failure(const RankEnd& told, std::span<const RankEnd> ends) {
  std::vector<int> silent;
  for (const RankEnd& end : ends) {
    if (end.asked && end.how == RankEnd::How::kKilled && end.value == SIGKILL) silent.push_back(end.rank);
  }
  Verdict verdict{.exit_code = kPeer, .line = exit_text(told), .by_exit = true, .restartable = true};
  if (silent.empty()) return verdict;
  std::sort(silent.begin(), silent.end());
  verdict.by_exit = false;
  verdict.dead = static_cast<int>(silent.size());
  verdict.line = fmt::format("rank{} {} did not answer the others and had to be killed",
                             silent.size() > 1 ? "s" : "", fmt::join(silent, ", "));
  return verdict;
}

Verdict judge_cause(const RankEnd& cause, std::span<const RankEnd> ends) {
  Verdict verdict;
  if (cause.how == RankEnd::How::kExited) {
    verdict.exit_code = cause.value;
    verdict.line = exit_text(cause);
    verdict.by_exit = true;
    return verdict;
  }
  verdict.exit_code = kPeer;
  verdict.restartable = true;
  verdict.dead = static_cast<int>(std::count_if(ends.begin(), ends.end(), vanished));
  verdict.line =
      cause.how == RankEnd::How::kLost
          ? fmt::format("rank {} was lost: its host {} or its guard went away", cause.rank, cause.host)
          : fmt::format("rank {} was killed by {}", cause.rank, signal_text(cause.value));
  return verdict;
}

}  // namespace

bool is_failure(const RankEnd& end) {
  return end.how != RankEnd::How::kExited || (end.value != 0 && end.value != kStopped);
}

Verdict judge(std::span<const RankEnd> ends) {
  const auto cause = std::find_if(ends.begin(), ends.end(), is_cause);
  if (cause != ends.end()) return judge_cause(*cause, ends);
  const auto any = [&](auto&& what) { return std::find_if(ends.begin(), ends.end(), what); };
  const auto told = any([](const RankEnd& end) { return !end.asked && exited_with(end, kPeer); });
  if (told != ends.end()) return judge_peer_failure(*told, ends);
  // All failures left are answers to a signal: the program's own exit code, or death by the signal.
  auto failure = any([](const RankEnd& end) { return is_failure(end) && !exited_with(end, kPeer); });
  if (failure == ends.end()) failure = any(is_failure);
  if (failure != ends.end()) {
    const bool exited = failure->how == RankEnd::How::kExited;
    return {.exit_code = exited ? failure->value : 128 + failure->value, .line = "", .restartable = false};
  }
  const auto stopped = any([](const RankEnd& end) { return exited_with(end, kStopped); });
  return {.exit_code = stopped != ends.end() ? kStopped : 0, .line = "", .restartable = false};
}

std::string signal_text(int number) {
  const char* name = sigabbrev_np(number);
  return name ? fmt::format("signal {} (SIG{})", number, name) : fmt::format("signal {}", number);
}

}  // namespace trireme
