#include "distributed/checkpoint/agree.h"

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
  std::string mine(1, static_cast<char>(ExitCode::kDone));
  try {
    mine += work();
  } catch (const Error& error) {
    mine = static_cast<char>(error.code()) + std::string(error.what());
  } catch (const std::exception& error) {
    mine = static_cast<char>(ExitCode::kCheckpoint) + std::string(error.what());
  }
  std::vector<std::string> all = gather(comm, mine, label);
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    const auto code = static_cast<ExitCode>(all[rank].front());
    all[rank].erase(0, 1);
    if (code == ExitCode::kDone) continue;
    if (all.size() == 1) throw Error(code, all[rank]);
    fail(code, "rank {}: {}", rank, all[rank]);
  }
  return all;
}

}  // namespace trireme
