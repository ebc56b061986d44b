// The parts of a report, which is one HTML page.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "launcher/traced_steps.h"

namespace trireme {

/// Returns a complete page that refers to no other file. `body` is HTML; the other arguments are plain text.
std::string html_page(std::string_view title, std::string_view subtitle, std::string_view body);
std::string html_section(std::string_view heading, std::string_view note, std::string_view content);
/// Returns a row of highlighted figures. Each card is (what it is, its value).
std::string html_cards(const std::vector<std::pair<std::string, std::string>>& cards);
/// Returns the SVG pictures side by side, as far as the window is wide enough.
std::string html_pictures(const std::vector<std::string>& pictures);
std::string html_table(const std::vector<std::string>& head,
                       const std::vector<std::vector<std::string>>& rows);

/// Returns a timeline of the ranks in a step of median length, and a table of the first rank's sums in it.
/// Shows at most `most_ranks` ranks.
std::string html_step(const std::vector<TracedRank>& ranks, std::size_t most_ranks);

/// Returns the body of a report on one run. `metrics` is the path of its metrics or empty, and `ranks` its
/// traces, of which there may be none.
std::string run_report(const std::filesystem::path& metrics, const std::vector<TracedRank>& ranks);
/// Returns the body of a report on a scaling benchmark. `csv` is the file that cluster/scaling/run.sh wrote.
/// Throws Error(kData), which names the file and the line, if the file is damaged.
std::string scaling_report(const std::filesystem::path& csv);

}  // namespace trireme
