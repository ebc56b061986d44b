// The picture of a run: its metrics file, drawn.
#pragma once

#include <chrono>
#include <filesystem>
#include <string_view>

namespace trireme {

/// Draws the curves of a metrics file as a PNG of 1200 x 800: training and evaluation loss, evaluation
/// accuracy, learning rate, throughput, and how much of the communication was hidden. `title` heads it.
/// Thread-safe. Error(kData) for a metrics file that is damaged or has no line; Error(kUsage) in one line
/// when gnuplot is missing or fails or the deadline passes. A run should report that and go on.
void draw_curves(const std::filesystem::path& metrics, const std::filesystem::path& picture,
                 std::string_view title, std::chrono::milliseconds deadline = std::chrono::seconds(60));

}  // namespace trireme
