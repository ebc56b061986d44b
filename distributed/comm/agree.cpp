#include "distributed/comm/agree.h"

#include <algorithm>
#include <cstdint>
#include <exception>

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

std::string broadcast_text(Communicator& comm, const std::string& text) {
  return gather(comm, comm.rank() == 0 ? text : std::string(), "a text of rank 0")[0];
}

}  // namespace trireme
