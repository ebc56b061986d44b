// Rules for the files that a job writes: no two of them are one file, and what an earlier run left stays.
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

/// Throws Error(kUsage) that names both flags where two outputs are the same place, also by way of links.
/// Only folders may be shared.
void check_apart(const std::vector<Output>& outputs);

/// Throws Error(kUsage) if the output is a regular file that holds something.
void check_unwritten(const Output& output);

/// Renames a regular file that holds something to FILE.attempt-N, and hands `say` a line that tells so. Does
/// nothing where there is no such file.
void set_aside(const std::filesystem::path& file, const std::function<void(const std::string&)>& say);

/// Returns the traces of ranks in a folder.
std::vector<std::filesystem::path> traces_in(const std::filesystem::path& folder);

}  // namespace trireme
