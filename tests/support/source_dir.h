// Finds the source files that a test reads.
#pragma once

#include <filesystem>
#include <stdexcept>
#include <string>

namespace trireme::test {

/// Returns the repository's root: the nearest folder above the test program or the working directory that
/// contains core/ops/ops.h. Throws if there is none.
inline std::string source_dir() {
  namespace fs = std::filesystem;
  for (const fs::path& start : {fs::read_symlink("/proc/self/exe").parent_path(), fs::current_path()})
    for (fs::path at = start; at != at.root_path(); at = at.parent_path())
      if (fs::exists(at / "core/ops/ops.h")) return at.string();
  throw std::runtime_error("no folder above the test program or the working directory holds core/ops/ops.h");
}

}  // namespace trireme::test
