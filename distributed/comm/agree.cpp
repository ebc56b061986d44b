#include "distributed/comm/agree.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <map>
#include <sstream>

namespace trireme {
namespace {

std::vector<std::string> gather(Communicator& comm, const std::string& mine, const std::string& label) {
  const auto ranks = static_cast<std::size_t>(comm.size()), rank = static_cast<std::size_t>(comm.rank());
  std::vector<std::uint64_t> sizes(ranks);
  sizes[rank] = mine.size();
  std::vector<std::span<std::byte>> slices;
  for (auto& size : sizes) slices.push_back(std::as_writable_bytes(std::span(&size, 1)));
  comm.all_gather(slices, label + " (sizes)").wait();

  std::vector<std::string> all(ranks);
  slices.clear();
  for (std::size_t r = 0; r < ranks; ++r) {
    all[r] = r == rank ? mine : std::string(sizes[r], '\0');
    slices.push_back(std::as_writable_bytes(std::span(all[r])));
  }
  comm.all_gather(slices, label).wait();
  return all;
}

}  // namespace

std::vector<std::string> agree(Communicator& comm, const std::string& label,
                               const std::function<std::string()>& work) {
  // One byte of exit code, then the result or the error's text.
  const auto outcome = [](ExitCode code, const std::string& text) { return static_cast<char>(code) + text; };
  std::string mine;
  try {
    mine = outcome(ExitCode::kDone, work());
  } catch (const Error& error) {
    mine = outcome(error.code(), error.what());
  } catch (const std::exception& error) {
    mine = outcome(ExitCode::kInternal, error.what());
  }
  std::vector<std::string> all = gather(comm, mine, label);
  const auto failed = [](const std::string& text) {
    return static_cast<ExitCode>(text.front()) != ExitCode::kDone;
  };
  if (const auto first = std::find_if(all.begin(), all.end(), failed); first != all.end()) {
    const bool everywhere = std::all_of(all.begin(), all.end(), failed);
    const std::string where = everywhere ? "" : fmt::format("rank {}: ", first - all.begin());
    throw AgreedError(static_cast<ExitCode>(first->front()), where + first->substr(1));
  }
  for (std::string& text : all) text.erase(0, 1);
  return all;
}

void agree_same(Communicator& comm, const std::string& what, const std::vector<Fact>& facts, ExitCode code,
                const std::string& advice) {
  if (comm.size() == 1) return;
  // A line each; values may have spaces, names have none.
  std::string mine;
  for (const Fact& fact : facts) mine += fact.name + " " + fact.value + "\n";
  const std::string first = broadcast_text(comm, mine);
  agree(comm, what, [&] {
    if (mine == first) return;
    std::map<std::string, std::string> there;
    std::istringstream lines(first);
    for (std::string line; std::getline(lines, line);) {
      const std::size_t end = line.find(' ');
      there[line.substr(0, end)] = line.substr(end + 1);
    }
    std::vector<std::string> differences;
    for (const Fact& fact : facts) {
      const auto found = there.find(fact.name);
      if (found == there.end())
        differences.push_back(fmt::format("{} {}, there none", fact.name, fact.value));
      else if (found->second != fact.value)
        differences.push_back(fmt::format("{} {}, there {}", fact.name, fact.value, found->second));
      if (found != there.end()) there.erase(found);
    }
    for (const auto& [name, value] : there)
      differences.push_back(fmt::format("no {}, there {}", name, value));
    if (differences.empty()) differences.push_back("they come in another order");
    constexpr std::size_t kMost = 3;
    const std::size_t more = differences.size() > kMost ? differences.size() - kMost : 0;
    differences.resize(differences.size() - more);
    fail(code, "{} are not those of rank 0: {}{}; {}", what, fmt::join(differences, "; "),
         more > 0 ? fmt::format("; and {} more", more) : "", advice);
  });
}

std::string broadcast_text(Communicator& comm, const std::string& text) {
  return gather(comm, comm.rank() == 0 ? text : std::string(), "a text of rank 0")[0];
}

}  // namespace trireme
