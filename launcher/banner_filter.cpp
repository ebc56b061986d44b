#include "launcher/banner_filter.h"

#include <array>
#include <sstream>

namespace trireme {
namespace {

const std::string kRule = std::string(74, '-') + "\n";

bool opens_message(std::string_view line) {
  constexpr std::array<std::string_view, 7> kWords = {"MPI",  "mpirun", "ORTE",       "orted",
                                                      "PMIx", "PMIX",   "Primary job"};
  for (std::string_view word : kWords) {
    if (line.find(word) != std::string_view::npos) return true;
  }
  return false;
}

/// Returns true for a line that mpirun prints before or after its framed messages: "[host:pid] ...".
bool is_complaint(std::string_view line) {
  constexpr std::array<std::string_view, 4> kWords = {"ORTE_ERROR_LOG", "PMIX ERROR",
                                                      " sent help message help-",
                                                      "Set MCA parameter \"orte_base_help_aggregate\""};
  const size_t text = line.find("] ");
  if (!line.starts_with('[') || text == std::string_view::npos || line.find(':') > text) return false;
  for (std::string_view word : kWords) {
    if (line.find(word, text) != std::string_view::npos) return true;
  }
  return false;
}

constexpr size_t kLongestComplaint = 400;

}  // namespace

std::string BannerFilter::feed(std::string_view piece) {
  held_ += piece;
  std::string shown;
  while (!held_.empty()) {
    const size_t end = held_.find('\n');
    const size_t line = end == std::string::npos ? held_.size() : end + 1;
    if (dropping_) {
      if (end == std::string::npos) break;
      dropping_ = held_.compare(0, line, kRule) != 0;
      held_.erase(0, line);
      continue;
    }
    if (at_line_start_ && kRule.compare(0, line, held_, 0, line) == 0) {
      const size_t next = held_.find('\n', kRule.size());
      if (next == std::string::npos) break;  // the next line tells whether the frame is Open MPI's
      if (opens_message(std::string_view(held_).substr(kRule.size(), next - kRule.size()))) {
        held_.erase(0, next + 1);
        dropping_ = true;
        continue;
      }
    }
    if (at_line_start_ && held_.front() == '[') {
      if (end == std::string::npos && line < kLongestComplaint) break;
      if (is_complaint(std::string_view(held_).substr(0, line))) {
        held_.erase(0, line);
        continue;
      }
    }
    shown.append(held_, 0, line);
    held_.erase(0, line);
    at_line_start_ = end != std::string::npos;
  }
  return shown;
}

std::string BannerFilter::finish() {
  std::string rest;
  if (!dropping_) rest.swap(held_);
  return rest;
}

std::string first_telling_line(std::string_view output) {
  std::istringstream lines{std::string(output)};
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("trireme: ")) line.erase(0, 9);
    if (line.find_first_not_of("- \t\r") == std::string::npos ||
        line.starts_with("Warning: Permanently added"))
      continue;
    return line;
  }
  return "";
}

}  // namespace trireme
