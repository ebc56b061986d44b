#include "distributed/train/initial_weights.h"

#include <algorithm>

#include "core/interchange/weights.h"
#include "distributed/checkpoint/manifest.h"
#include "distributed/checkpoint/store.h"
#include "distributed/comm/agree.h"
#include "distributed/ddp/replica.h"
#include "distributed/train/digest.h"
#include "distributed/train/options.h"

namespace trireme {

namespace {

namespace fs = std::filesystem;

/// Leaves out the name that a model has where its user gives it none.
void drop_default_name(std::vector<NamedTensor>& weights) {
  const std::string prefix = std::string(kDefaultModelName) + ".";
  if (!std::ranges::all_of(weights, [&](const NamedTensor& t) { return t.name.starts_with(prefix); })) return;
  for (NamedTensor& t : weights) t.name.erase(0, prefix.size());
}

/// Returns true if the file has full names of the job's tensors, as an export of a checkpoint has.
bool is_export(const fs::path& path, const std::vector<NamedTensor>& weights) {
  const auto entries =
      read_safetensors_layout(RealFileSystem(), followed(path), ForeignDTypes::kKeep).entries;
  return !weights.empty() &&
         std::ranges::any_of(entries, [&](const auto& entry) { return entry.name == weights[0].name; });
}

[[noreturn]] void refuse_folder(const fs::path& path) {
  const CheckpointStore store(std::make_shared<RealFileSystem>(), path);
  const bool is_checkpoint = fs::exists(path / kManifestName) || !store.list().empty();
  fail(ExitCode::kUsage, "--init '{}': is a {}: {}", path.string(), is_checkpoint ? "checkpoint" : "folder",
       is_checkpoint
           ? fmt::format("make a file of it with `trireme checkpoint export {} FILE`, or go on from "
                         "it with --resume",
                         path.string())
           : "name a safetensors file");
}

void load(const JobOptions& options, std::vector<NamedTensor> weights) {
  const fs::path path = options.init();
  std::error_code ignored;
  if (!fs::exists(path, ignored)) fail(ExitCode::kUsage, "--init '{}': there is no such file", path.string());
  if (fs::is_directory(path, ignored)) refuse_folder(path);
  if (!options.init_map().empty()) {
    const WeightMap map = WeightMap::read(options.init_map(), patience_of(options));
    drop_default_name(weights);
    return load_weights(weights, path, map);
  }
  // An export also holds what optimizers and hooks remember; a fresh start begins without.
  if (is_export(path, weights))
    return load_weights(weights, path,
                        WeightMap::parse("{*} {*}\n- {*model}.optimizer{*}\n- {*model}.hook.{*}\n", "names"));
  drop_default_name(weights);
  load_weights(weights, path);
}

}  // namespace

void load_initial_weights(Communicator& comm, const JobOptions& options, std::vector<NamedTensor> weights) {
  agree(comm, "initial weights", [&] { load(options, weights); });
  const std::string digest = digest_of(weights), first = broadcast_text(comm, digest);
  agree(comm, "same initial weights", [&] {
    if (digest != first)
      fail(ExitCode::kUsage,
           "--init '{}': its weights have sha256 {} here, {} on rank 0; give all the same file",
           options.init(), digest, first);
  });
}

}  // namespace trireme
