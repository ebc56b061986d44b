#include "core/base/progress.h"

#include <atomic>

namespace trireme {

namespace {

std::atomic<std::uint64_t> count{0};

}  // namespace

void note_progress() { count.fetch_add(1, std::memory_order_relaxed); }

std::uint64_t progress_count() { return count.load(std::memory_order_relaxed); }

}  // namespace trireme
