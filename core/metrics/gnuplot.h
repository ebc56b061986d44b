// Runs gnuplot as a child process.
#pragma once

#include <chrono>
#include <filesystem>
#include <string_view>

namespace trireme {

/// Runs `script`, whose terminal must write to standard output, and puts what it wrote at `picture`, whole or
/// not at all. No shell and no file name passes through gnuplot, so any path is fine. Thread-safe.
/// Error(kUsage) in one line when gnuplot is not installed, fails, or runs longer than `deadline` (then it is
/// killed), or the picture cannot be written.
void run_gnuplot(std::string_view script, const std::filesystem::path& picture,
                 std::chrono::milliseconds deadline);

}  // namespace trireme
