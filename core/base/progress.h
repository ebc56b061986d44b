// How code deep inside a long step shows that the step still moves.
#pragma once

#include <cstdint>

namespace trireme {

/// Counts one more piece of finished work: an operation, a written block, a batch. Takes nanoseconds; any
/// thread may call it.
void note_progress();

/// Returns how often note_progress() was called in this process. A program that is asked to stop watches this
/// number: a step that does not change it for a long time hangs. Any thread may call it.
std::uint64_t progress_count();

}  // namespace trireme
