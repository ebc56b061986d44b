#include "distributed/train/engine_log.h"

#include <bit>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <string_view>
#include <tuple>
#include <utility>

#include "core/base/sha256.h"
#include "distributed/comm/agree.h"

namespace trireme {

namespace {

constexpr std::string_view kComputedBy = " => ";

std::string hash_of(const std::string& text) {
  Sha256 hash;
  hash.update(text.data(), text.size());
  return hash.hex().substr(0, 16);
}

/// Two ranks that have different engines for one operation, all of them as hashes.
struct Difference {
  std::size_t rank, other;
  std::string operation;
};

/// `all` has, for each rank, lines "hash of an operation, space, hash of its engine".
std::optional<Difference> first_difference(const std::vector<std::string>& all) {
  std::map<std::string, std::pair<std::size_t, std::string>> known;
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    std::istringstream lines(all[rank]);
    for (std::string operation, engine; lines >> operation >> engine;) {
      const auto& [first, its] = known.try_emplace(operation, rank, engine).first->second;
      if (its != engine) return Difference{first, rank, operation};
    }
  }
  return std::nullopt;
}

}  // namespace

void agree_engines(Communicator& comm, const EngineChoices& mine) {
  const std::string label = "engines of the GPU's libraries";
  const auto whole = agree(comm, label, [&] { return hash_of(to_text(mine)); });
  if (std::set(whole.begin(), whole.end()).size() == 1) return;
  const auto all = agree(comm, label, [&] {
    std::string lines;
    for (const auto& [operation, engine] : mine)
      lines += fmt::format("{} {}\n", hash_of(operation), hash_of(engine));
    return lines;
  });
  const auto difference = first_difference(all);
  if (!difference) return;  // some ranks have operations that others do not have yet
  const auto texts = agree(comm, label, [&]() -> std::string {
    for (const auto& [operation, engine] : mine)
      if (hash_of(operation) == difference->operation) return fmt::format("{}\n{}", engine, operation);
    return "";
  });
  const auto& [rank, other, hash] = *difference;
  const std::string &one = texts[rank], &two = texts[other];
  throw AgreedError(
      ExitCode::kUsage,
      fmt::format(
          "rank {} computes \"{}\" by \"{}\", rank {} by \"{}\": bits would depend on the rank; use the same "
          "kind of GPU and the same driver and libraries on all nodes",
          rank, one.substr(one.find('\n') + 1), one.substr(0, one.find('\n')), other,
          two.substr(0, two.find('\n'))));
}

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

std::vector<std::string> EngineLog::news() {
  std::vector<std::string> lines = kernels_of(device_).take_notices();
  if (before_.empty()) return lines;
  for (const auto& [operation, engine] : kernels_of(device_).engine_choices()) {
    const auto then = before_.find(operation);
    if (then == before_.end()) continue;
    if (then->second != engine)
      lines.push_back(fmt::format(
          "\"{}\" is computed by \"{}\", but was by \"{}\" when the checkpoint was made: bits may differ",
          operation, engine, then->second));
    before_.erase(then);
  }
  return lines;
}

bool EngineLog::is_due(std::int64_t finished_steps) const {
  return std::has_single_bit(static_cast<std::uint64_t>(finished_steps));
}

void EngineLog::check(Communicator& comm) const {
  if (device_.is_cpu() || comm.size() == 1) return;
  EngineChoices engines = kernels_of(device_).engine_choices();
  engines.emplace("all operations", kernels_of(device_).libraries());
  agree_engines(comm, engines);
}

std::string EngineLog::text() const { return to_text(kernels_of(device_).engine_choices()); }

}  // namespace trireme
