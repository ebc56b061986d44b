// Small text files that people write: job files, maps of names, tables.
#pragma once

#include <chrono>
#include <filesystem>
#include <string>

#include "kernels/error.h"

namespace trireme {

/// How long read_text waits for a pipe by default: as long as a job waits for a peer.
inline constexpr std::chrono::milliseconds kPipePatience = std::chrono::minutes(2);

/// Returns the content of a file, without a UTF-8 byte order mark. A pipe is read to its end, where each wait
/// for its writer lasts at most `patience`. Throws Error(code) that names the path and the reason: the file
/// is missing, a folder or unreadable, the pipe's writer does not come, or the text is UTF-16 or packed.
std::string read_text(const std::filesystem::path& path, ExitCode code = ExitCode::kUsage,
                      std::chrono::milliseconds patience = kPipePatience);

}  // namespace trireme
