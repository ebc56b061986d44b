#include "core/metrics/progress.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/base/terminal.h"
#include "core/metrics/text.h"
#include "kernels/error.h"

namespace trireme {

namespace {

constexpr std::chrono::milliseconds kTerminalPeriod{100};
constexpr std::chrono::seconds kPlainPeriod{5};
constexpr int kBarCells = 10;
constexpr int kPlainWidth = 200;
constexpr std::string_view kClearLine = "\r\x1b[K";

/// A piece of the line; those of the highest rank are the first to go when room is short.
struct Piece {
  std::string text;
  int rank;
};

/// About four significant digits: 0.0123, 1.234, 123.4, 12,345.
std::string short_number(double value) {
  if (!std::isfinite(value)) return std::isnan(value) ? "nan" : (value > 0 ? "inf" : "-inf");
  const double size = std::fabs(value);
  if (size >= 1e6 || (size > 0 && size < 1e-3)) return fmt::format("{:.2e}", value);
  if (size >= 1000) return grouped_digits(std::llround(value));
  return fmt::format("{:.{}f}", value, size >= 100 ? 1 : size >= 10 ? 2 : 4);
}

std::string percent(double fraction, int digits) {
  return fmt::format("{:.{}f}%", 100 * std::clamp(fraction, 0.0, 1.0), digits);
}

std::string count_of(std::int64_t value, std::int64_t total) {
  if (total <= 0) return fmt::format("{}", value);
  const std::string all = fmt::format("{}", total);
  // As wide as the total, so that the rest of the line stands still.
  return fmt::format("{:>{}}/{}", value, all.size(), all);
}

std::string bar(double fraction) {
  const int filled = static_cast<int>(fraction * kBarCells);
  std::string cells(static_cast<std::size_t>(filled), '=');
  if (filled < kBarCells) cells += '>';
  cells.resize(kBarCells, ' ');
  return fmt::format("[{}]", cells);
}

std::vector<Piece> pieces_of(const Progress& p) {
  std::vector<Piece> pieces;
  if (p.epoch > 0) pieces.push_back({"epoch " + count_of(p.epoch, p.epochs), 4});
  if (p.steps > 0) {
    const double part = std::clamp(static_cast<double>(p.step) / static_cast<double>(p.steps), 0.0, 1.0);
    pieces.push_back({bar(part), 9});
    // Rounded down: 100% is for the end only.
    pieces.push_back({fmt::format("{:>3}%", static_cast<int>(100 * part)), 7});
  }
  pieces.push_back({"step " + count_of(p.step, p.steps), 1});
  pieces.push_back({"loss " + short_number(p.loss), 0});
  if (!std::isnan(p.accuracy)) pieces.push_back({"acc " + percent(p.accuracy, 2), 3});
  if (!std::isnan(p.samples_per_second)) {
    pieces.push_back({fmt::format("{} {}/s", short_number(p.samples_per_second), p.sample), 5});
  }
  if (!std::isnan(p.hidden)) pieces.push_back({"comm " + percent(p.hidden, 0) + " hidden", 6});
  if (!std::isnan(p.lr)) pieces.push_back({fmt::format("lr {:.3g}", p.lr), 8});
  if (!std::isnan(p.seconds_left)) pieces.push_back({"left " + format_duration(p.seconds_left), 2});
  return pieces;
}

std::string joined(const std::vector<Piece>& pieces) {
  std::string line;
  for (const Piece& piece : pieces) line += (line.empty() ? "" : "  ") + piece.text;
  return line;
}

/// Returns the width of the terminal that shows what is written to `descriptor`; 0 if none does.
int shown_columns(int descriptor) {
  return descriptor == STDERR_FILENO ? columns_of_standard_error() : terminal_columns(descriptor);
}

/// Returns the line with its bar in green.
std::string coloured(std::string line) {
  const std::size_t begin = line.find('['), end = line.find(']', begin);
  if (begin == line.npos || end == line.npos || !may_use_colours()) return line;
  line.insert(end + 1, "\x1b[0m");
  return line.insert(begin, "\x1b[32m");
}

}  // namespace

std::string format_duration(double seconds) {
  if (!(seconds >= 0) || seconds > 10 * 365.25 * 86400) return "?";
  const std::int64_t all = std::llround(seconds);
  const std::int64_t minutes = all / 60;
  const std::int64_t hours = minutes / 60;
  if (hours >= 48) return fmt::format("{}d {:02}h", hours / 24, hours % 24);
  if (hours > 0) return fmt::format("{}:{:02}:{:02}", hours, minutes % 60, all % 60);
  return fmt::format("{}:{:02}", minutes, all % 60);
}

std::string format_progress(const Progress& progress, int width) {
  std::vector<Piece> pieces = pieces_of(progress);
  const auto room = static_cast<std::size_t>(std::max(width, 0));
  std::string line = joined(pieces);
  while (line.size() > room && pieces.size() > 1) {
    pieces.erase(std::max_element(pieces.begin(), pieces.end(),
                                  [](const Piece& a, const Piece& b) { return a.rank < b.rank; }));
    line = joined(pieces);
  }
  return line.substr(0, room);
}

ProgressLine::ProgressLine(int descriptor)
    : descriptor_(descriptor), terminal_(shown_columns(descriptor) > 0) {}

ProgressLine::~ProgressLine() {
  if (open_) print("\n");
}

void ProgressLine::update(const Progress& progress, Clock::time_point now) {
  if (now < next_) return;
  if (terminal_) {
    print(fmt::format("{}{}", kClearLine, coloured(format_progress(progress, width()))));
    open_ = true;
    next_ = now + kTerminalPeriod;
  } else {
    finish_line(progress, now);
  }
}

void ProgressLine::finish_line(const Progress& progress, Clock::time_point now) {
  print(fmt::format("{}{}\n", terminal_ ? kClearLine : "", format_progress(progress, width())));
  open_ = false;
  next_ = now + (terminal_ ? Clock::duration(kTerminalPeriod) : Clock::duration(kPlainPeriod));
}

void ProgressLine::step_aside() {
  if (!open_) return;
  print(kClearLine);
  open_ = false;
  next_ = Clock::time_point();
}

void ProgressLine::message(std::string_view text) {
  step_aside();
  print(fmt::format("{}\n", text));
}

void ProgressLine::print(std::string_view text) {
  // A stopped terminal (Ctrl-S) or a full pipe must not hold up training, and a reader that is gone (POLLERR)
  // not kill it.
  pollfd ready{descriptor_, POLLOUT, 0};
  if (poll(&ready, 1, 0) != 1 || ready.revents != POLLOUT) return;
  if (::write(descriptor_, text.data(), text.size()) < 0) return;
}

int ProgressLine::width() const {
  if (!terminal_) return kPlainWidth;
  // The last column stays free: writing there makes some terminals wrap.
  const int columns = shown_columns(descriptor_);
  return (columns > 1 ? columns : 80) - 1;
}

}  // namespace trireme
