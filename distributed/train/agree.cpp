#include "distributed/train/agree.h"

#include <array>
#include <cstdint>
#include <cstring>
#include <vector>

namespace trireme {

namespace {

/// What a rank tells the others.
struct Outcome {
  std::int32_t code = 0;
  std::array<char, 1020> text{};
};

}  // namespace

void agree(Communicator& comm, const std::function<void()>& fn) {
  std::vector<Outcome> outcomes(static_cast<std::size_t>(comm.size()));
  Outcome& own = outcomes[static_cast<std::size_t>(comm.rank())];
  try {
    fn();
  } catch (const Error& error) {
    own.code = static_cast<std::int32_t>(error.code());
    std::strncpy(own.text.data(), error.what(), own.text.size() - 1);
  }
  std::vector<std::span<std::byte>> slices;
  for (Outcome& outcome : outcomes) slices.push_back(std::as_writable_bytes(std::span(&outcome, 1)));
  comm.all_gather(slices, "outcomes").wait();
  std::size_t failed = 0, first = outcomes.size();
  for (std::size_t r = outcomes.size(); r-- > 0;)
    if (outcomes[r].code != 0) {
      ++failed;
      first = r;
    }
  if (failed == 0) return;
  const std::string where = failed < outcomes.size() ? fmt::format("rank {}: ", first) : "";
  throw AgreedError(static_cast<ExitCode>(outcomes[first].code), where + outcomes[first].text.data());
}

std::string broadcast_text(Communicator& comm, std::string text) {
  std::uint64_t size = text.size();
  comm.broadcast(std::as_writable_bytes(std::span(&size, 1)), 0, "size of a text").wait();
  text.resize(size);
  comm.broadcast(std::as_writable_bytes(std::span(text)), 0, "a text").wait();
  return text;
}

}  // namespace trireme
