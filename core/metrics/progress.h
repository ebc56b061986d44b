// The progress line on the terminal.
#pragma once

#include <chrono>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

namespace trireme {

/// The contents of the progress line. Unknown values stay NaN (0 for totals) and are omitted. The loss is
/// always shown, because a NaN loss matters to the user.
struct Progress {
  static constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

  std::int64_t epoch = 0;  ///< counted from 1; 0: not counted
  std::int64_t epochs = 0;
  std::int64_t step = 0;  ///< finished steps
  std::int64_t steps = 0;
  double loss = kUnknown;
  double accuracy = kUnknown;  ///< 0 to 1
  double samples_per_second = kUnknown;
  std::string_view sample = "samples";  ///< the word for samples
  double hidden = kUnknown;             ///< part of the communication time hidden behind compute, 0 to 1
  double lr = kUnknown;
  double seconds_left = kUnknown;
};

/// The line for a terminal `width` columns wide, without control characters and never wider. Where it does
/// not fit, what matters least goes first: the bar, learning rate, time per epoch, ...; step and loss stay
/// longest.
std::string format_progress(const Progress& progress, int width);
/// "0:07", "12:34", "3:25:45", "12d 03h"; "?" for what is unknown or above 10 years.
std::string format_duration(double seconds);

/// Shows progress on a file descriptor. On a terminal it rewrites one line in place, at most 10 times a
/// second, also where that terminal shows standard error through mpirun or `trireme launch`. Elsewhere it
/// prints plain lines, at most one every 5 s and one at each new epoch's end. Output that fails or would
/// block is left out: showing progress never stops a run. One thread at a time.
class ProgressLine {
 public:
  using Clock = std::chrono::steady_clock;

  /// Does not own `descriptor`.
  explicit ProgressLine(int descriptor);
  /// Leaves the cursor on a new line.
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void update(const Progress& progress, Clock::time_point now = Clock::now());
  /// Shows `progress` at once, as a line that stays: an epoch or the run is over.
  void finish_line(const Progress& progress, Clock::time_point now = Clock::now());
  /// Takes an unfinished line off the terminal, so that others can print; the next update brings it back.
  void step_aside();
  /// Prints a line of its own; on a terminal the progress line moves below it.
  void message(std::string_view text);

 private:
  void print(std::string_view text);
  int width() const;

  int descriptor_;
  bool terminal_;
  bool open_ = false;  ///< an unfinished line is on the terminal
  Clock::time_point next_;
};

}  // namespace trireme
