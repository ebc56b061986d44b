// The names in a store's directory, and the removal of what is not a checkpoint.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/base/file_system.h"
#include "distributed/checkpoint/store.h"

namespace trireme {

/// The name prefix of probe files, which a store creates only to find out whether it can be written.
inline constexpr const char* kProbePrefix = "probe.tmp.";

/// "step-00000012.tmp.<run>.<epoch>": no reader looks at it, and it meets no other name.
std::string garbage_name(std::int64_t step, const std::string& run_id);

/// Committed checkpoints, oldest first; none where there is no directory.
std::vector<Checkpoint> list_checkpoints(const FileSystem& files, const std::filesystem::path& directory);

/// Makes a directory and its parents unless it is there. Throws FileError.
void make_dirs(FileSystem& files, const std::filesystem::path& directory);
/// Removes a file, or a directory with all that is in it.
void remove_tree(FileSystem& files, const std::filesystem::path& path);
/// Removes a file, unless somebody was faster.
void remove_if_there(FileSystem& files, const std::filesystem::path& path);
/// Removes attempts and half-removed checkpoints of this run, and probes that a kill has left.
void remove_garbage_of(FileSystem& files, const std::filesystem::path& directory, const std::string& run_id);

}  // namespace trireme
