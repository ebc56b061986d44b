// A report as one HTML page, and its parts.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "launcher/traced_steps.h"

namespace trireme {

/// A whole page that needs no other file.
std::string html_page(std::string_view title, std::string_view subtitle, std::string_view body);
std::string html_section(std::string_view heading, std::string_view note, std::string_view content);
/// Figures that stand out: (what, value).
std::string html_cards(const std::vector<std::pair<std::string, std::string>>& cards);
/// Pictures side by side, where there is room.
std::string html_pictures(const std::vector<std::string>& pictures);
std::string html_table(const std::vector<std::string>& head,
                       const std::vector<std::vector<std::string>>& rows);

/// What the ranks did in one step of the usual length, and a table of its sums. At most `most_ranks` are
/// shown.
std::string html_step(const std::vector<TracedRank>& ranks, std::size_t most_ranks);

/// The body of a report on one run: its metrics (may be empty) and its traces (may be none).
std::string run_report(const std::filesystem::path& metrics, const std::vector<TracedRank>& ranks);
/// The body of a report on a scaling benchmark: the file that cluster/scaling/run.sh wrote. Error(kData)
/// naming file and line.
std::string scaling_report(const std::filesystem::path& csv);

}  // namespace trireme
