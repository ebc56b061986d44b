// Writes pictures as PNG files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace trireme {

struct Picture {
  std::int64_t height = 0, width = 0, channels = 1;  ///< channels: 1 (gray) or 3 (RGB)
  std::vector<std::uint8_t> pixels;                  ///< (height, width, channels)
};

/// Writes the picture to a PNG file. Throws Error(kUsage) if the file cannot be written.
void write_png(const std::filesystem::path& path, const Picture& picture);

}  // namespace trireme
