// Tensors in and out of safetensors files by name: weights from and for other systems.
#pragma once

#include <filesystem>
#include <vector>

#include "core/interchange/safetensors.h"
#include "core/interchange/weight_map.h"
#include "core/nn/module.h"

namespace trireme {

/// Writes one plain file that PyTorch, NumPy and others load, replacing an old one only once the new one is
/// complete on disk. Names must differ; tensors of any layout are written row-major. Throws Error(kUsage) for
/// a name that a file cannot hold, FileError where writing fails.
void save_safetensors(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors,
                      const SafetensorsMetadata& metadata = {{"format", "pt"}});

struct LoadedTensors {
  std::vector<NamedTensor> tensors;  ///< in name order, each with memory of its own
  SafetensorsMetadata metadata;
};
/// Throws Error(kCheckpoint) naming file, tensor and place of what is wrong.
LoadedTensors load_safetensors(const std::filesystem::path& path);

/// Fills `ours` from a file. Floating point types are converted; other types and all shapes must be the same.
/// Nothing is written unless everything fits: what is missing, unexpected or of another shape is listed in
/// one Error(kCheckpoint). Tensors of the file that the model lacks may have
/// any dtype where the map drops them. PyTorch's counters `num_batches_tracked` are skipped.
void load_weights(const std::vector<NamedTensor>& ours, const std::filesystem::path& path,
                  const WeightMap& map = {});
/// Fills the parameters and buffers of a module from a file, as the overload for named tensors does.
void load_weights(nn::Module& module, const std::filesystem::path& path, const WeightMap& map = {});

}  // namespace trireme
