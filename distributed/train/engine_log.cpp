#include "distributed/train/engine_log.h"

#include <algorithm>
#include <bit>
#include <map>
#include <sstream>
#include <string_view>
#include <utility>

#include "core/base/sha256.h"
#include "distributed/comm/agree.h"

namespace trireme {

namespace {

constexpr std::string_view kComputedBy = " => ";
constexpr const char* kLabel = "engines of the GPU's libraries";

/// The libraries, then the number of notices, the notices, and the engines, one a line.
std::string text_of(const EngineReport& report) {
  std::string text = fmt::format("{}\n{}\n", report.libraries, report.notices.size());
  for (const std::string& line : report.notices) text += line + '\n';
  return text + to_text(report.engines);
}

EngineReport report_of(const std::string& text) {
  EngineReport report;
  std::istringstream lines(text);
  std::string line;
  std::getline(lines, report.libraries);
  std::getline(lines, line);
  for (std::size_t left = std::stoul(line); left > 0 && std::getline(lines, line); --left)
    report.notices.push_back(line);
  report.engines = engines_from_text(text.substr(static_cast<std::size_t>(lines.tellg())));
  return report;
}

std::string hash_of(const std::string& text) {
  Sha256 hash;
  hash.update(text.data(), text.size());
  return hash.hex();
}

/// Returns the reports of all ranks, or one report if all ranks have the same.
std::vector<EngineReport> exchange(Communicator& comm, const EngineReport& mine) {
  const std::string text = text_of(mine);
  const auto hashes = agree(comm, kLabel, [&] { return hash_of(text); });
  if (std::ranges::count(hashes, hashes[0]) == std::ssize(hashes)) return {mine};
  std::vector<EngineReport> all;
  for (const std::string& one : agree(comm, kLabel, [&] { return text; })) all.push_back(report_of(one));
  return all;
}

/// Returns the notices of all ranks; those that not all ranks have begin with the lowest rank that has them.
std::vector<std::string> notices_of(const std::vector<EngineReport>& reports) {
  std::vector<std::string> lines;
  std::set<std::string> seen;
  for (std::size_t rank = 0; rank < reports.size(); ++rank)
    for (const std::string& line : reports[rank].notices) {
      if (!seen.insert(line).second) continue;
      const bool all = std::ranges::all_of(reports, [&](const EngineReport& report) {
        return std::ranges::find(report.notices, line) != report.notices.end();
      });
      lines.push_back(all ? line : fmt::format("rank {}: {}", rank, line));
    }
  return lines;
}

}  // namespace

std::string to_text(const EngineChoices& engines) {
  std::string text;
  for (const auto& [operation, engine] : engines)
    text += fmt::format("{}{}{}\n", operation, kComputedBy, engine);
  return text;
}

EngineChoices engines_from_text(const std::string& text) {
  EngineChoices engines;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);)
    if (const std::size_t at = line.find(kComputedBy); at != line.npos)
      engines.emplace(line.substr(0, at), line.substr(at + kComputedBy.size()));
  return engines;
}

std::vector<std::string> EngineLog::gather(Communicator& comm) {
  if (device_.is_cpu()) return {};
  const KernelTable& kernels = kernels_of(device_);
  return gather(comm, {kernels.engine_choices(), kernels.take_notices(), kernels.libraries()});
}

std::vector<std::string> EngineLog::gather(Communicator& comm, const EngineReport& mine) {
  const std::vector<EngineReport> reports = exchange(comm, mine);
  merge(reports);
  std::vector<std::string> lines = notices_of(reports);
  for (std::size_t rank = 1; rank < reports.size(); ++rank)
    if (reports[rank].libraries != reports[0].libraries)
      lines.push_back(fmt::format("rank 0 has {}, rank {} has {}: bits may depend on the rank",
                                  reports[0].libraries, rank, reports[rank].libraries));
  std::ranges::move(compare_with_checkpoint(), std::back_inserter(lines));
  std::erase_if(lines, [this](const std::string& line) { return !told_.insert(line).second; });
  return lines;
}

void EngineLog::merge(const std::vector<EngineReport>& reports) {
  std::map<std::string, std::size_t> first;  // the lowest rank that has an operation
  all_.clear();
  difference_.clear();
  for (std::size_t rank = 0; rank < reports.size(); ++rank)
    for (const auto& [operation, engine] : reports[rank].engines) {
      const std::string& known = all_.try_emplace(operation, engine).first->second;
      const std::size_t other = first.try_emplace(operation, rank).first->second;
      if (known != engine && difference_.empty())
        difference_ = fmt::format("rank {} computes \"{}\" by \"{}\", rank {} by \"{}\"", other, operation,
                                  known, rank, engine);
    }
}

std::vector<std::string> EngineLog::compare_with_checkpoint() {
  std::vector<std::string> lines;
  std::erase_if(before_, [&](const auto& recorded) {
    const auto& [operation, engine] = recorded;
    const auto now = all_.find(operation);
    if (now != all_.end() && now->second != engine)
      lines.push_back(
          fmt::format("\"{}\" is now computed by \"{}\"; when the checkpoint was made it was computed by "
                      "\"{}\": bits may differ",
                      operation, now->second, engine));
    return now != all_.end();
  });
  return lines;
}

bool EngineLog::is_due(std::int64_t steps_of_this_run) {
  return std::has_single_bit(static_cast<std::uint64_t>(steps_of_this_run));
}

}  // namespace trireme
