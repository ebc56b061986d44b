#include "kernels/cuda/engines.h"

#include <algorithm>
#include <mutex>
#include <utility>
#include <vector>

#include "kernels/error.h"

namespace trireme::cuda {

namespace {

struct Records {
  std::mutex mutex;
  EngineChoices engines;
  std::vector<std::string> notices;
  std::size_t taken = 0;  ///< notices that take_notices() has returned
};

Records& records() {
  static Records* const one = new Records;
  return *one;
}

}  // namespace

void add_engine(const std::string& operation, const std::string& engine) {
  const std::lock_guard lock(records().mutex);
  records().engines.emplace(operation, engine);
}

void add_notice(const std::string& line) {
  const std::lock_guard lock(records().mutex);
  auto& notices = records().notices;
  if (std::ranges::find(notices, line) == notices.end()) notices.push_back(line);
}

EngineChoices engine_choices() {
  const std::lock_guard lock(records().mutex);
  return records().engines;
}

std::vector<std::string> take_notices() {
  const std::lock_guard lock(records().mutex);
  const auto& notices = records().notices;
  const auto first =
      notices.begin() + static_cast<std::ptrdiff_t>(std::exchange(records().taken, notices.size()));
  return {first, notices.end()};
}

PlanAttempt attempt_twice(const std::function<PlanAttempt()>& make,
                          const std::function<void()>& release_memory, const std::string& what) {
  const PlanAttempt first = make();
  if (first.outcome != PlanAttempt::kFailed) return first;
  release_memory();
  PlanAttempt second = make();
  if (second.outcome == PlanAttempt::kFailed)
    fail(ExitCode::kInternal,
         "cuda: {} failed twice: {}, and after cached memory was released: {}; another engine would change "
         "bits, so "
         "none was used; free memory on the GPU or use a smaller batch",
         what, first.reason, second.reason);
  return second;
}

std::optional<std::size_t> choose_plan(std::size_t count,
                                       const std::function<PlanAttempt(std::size_t candidate)>& make,
                                       const std::function<void()>& release_memory,
                                       const std::string& operation) {
  for (std::size_t i = 0; i < count; ++i) {
    const std::string what = fmt::format("making plan {} of {} for {}", i + 1, count, operation);
    if (attempt_twice([&] { return make(i); }, release_memory, what).outcome == PlanAttempt::kMade) return i;
  }
  return std::nullopt;
}

}  // namespace trireme::cuda
