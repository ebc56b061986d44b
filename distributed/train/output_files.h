// Rules for the files that a job writes: two outputs never go to one file, and no run overwrites what an
// earlier run left unless it resumes that run.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace trireme {

/// A file or folder that a job writes, and the flag that named it. An empty path stands for no output.
struct Output {
  const char* flag;
  std::filesystem::path path;
  bool is_folder = false;
};

/// Throws Error(kUsage), which names both flags, if two outputs are one file, or one is a file and the other
/// a folder at the same path. Links are followed. Two folders may be the same.
void check_apart(const std::vector<Output>& outputs);

/// Throws Error(kUsage) if the output is a regular file that is not empty.
void check_unwritten(const Output& output);

/// Renames a regular file that is not empty to FILE.attempt-N and calls `say` with a line about it. Does
/// nothing if there is no such file, or if it cannot be renamed.
void set_aside(const std::filesystem::path& file, const std::function<void(const std::string&)>& say);

/// Returns the paths of the traces that ranks have written into a folder, sorted by name.
std::vector<std::filesystem::path> traces_in(const std::filesystem::path& folder);

}  // namespace trireme
