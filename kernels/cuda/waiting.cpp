#include "kernels/cuda/waiting.h"

#include <mutex>
#include <set>
#include <thread>

#include "kernels/cuda/memory.h"

namespace trireme::cuda {

namespace {

struct Guards {
  std::mutex mutex;
  std::set<const WaitGuard*> all;
};

Guards& guards() {
  static auto* const one = new Guards;
  return *one;
}

}  // namespace

bool is_guarded() {
  const std::lock_guard lock(guards().mutex);
  return !guards().all.empty();
}

WaitGuard::WaitGuard(Ask ask) : ask_(std::move(ask)) {
  const std::lock_guard lock(guards().mutex);
  guards().all.insert(this);
}

WaitGuard::~WaitGuard() {
  const std::lock_guard lock(guards().mutex);
  guards().all.erase(this);
}

void ask_guards(std::chrono::nanoseconds waited) {
  const std::lock_guard lock(guards().mutex);
  for (const WaitGuard* guard : guards().all) guard->ask_(waited);
}

void poll(const std::function<bool()>& is_done, const WaitGuard::Ask& ask) {
  using namespace std::chrono_literals;
  const auto begin = std::chrono::steady_clock::now();
  // Short waits are the rule: the thread gives up its core only after a while.
  for (int asked = 0; !is_done(); ++asked) {
    if (asked < 1000) continue;
    ask(std::chrono::steady_clock::now() - begin);
    std::this_thread::sleep_for(20us);
  }
}

void wait_until_done(Stream stream) {
  if (!is_guarded()) return synchronize(stream);
  const Mark end;
  record(end.get(), stream);
  wait_until_done(end.get());
}

void wait_until_done(Event event) {
  if (!is_guarded()) return synchronize(event);
  poll([event] { return is_done(event); }, ask_guards);
}

}  // namespace trireme::cuda
