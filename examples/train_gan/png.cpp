#include "examples/train_gan/png.h"

#include <zlib.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>

#include "kernels/error.h"

namespace trireme {

namespace {

std::string big_endian(std::uint32_t value) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift);
  return bytes;
}

const Bytef* bytes_of(const std::string& text) { return reinterpret_cast<const Bytef*>(text.data()); }

std::string chunk(const std::string& kind, const std::string& content) {
  const std::string body = kind + content;
  return big_endian(static_cast<std::uint32_t>(content.size())) + body +
         big_endian(static_cast<std::uint32_t>(crc32(0, bytes_of(body), static_cast<uInt>(body.size()))));
}

std::string deflated(const std::string& plain) {
  uLongf size = compressBound(plain.size());
  std::string packed(size, '\0');
  TRIREME_CHECK(
      compress(reinterpret_cast<Bytef*>(packed.data()), &size, bytes_of(plain), plain.size()) == Z_OK,
      "png: zlib refused {} bytes", plain.size());
  packed.resize(size);
  return packed;
}

}  // namespace

void write_png(const std::filesystem::path& path, const Picture& picture) {
  const auto row = static_cast<std::size_t>(picture.width * picture.channels);
  std::string rows;  // a zero byte before each row means that the row is not filtered
  for (std::int64_t y = 0; y < picture.height; ++y) {
    rows += '\0';
    rows.append(reinterpret_cast<const char*>(picture.pixels.data()) + static_cast<std::size_t>(y) * row,
                row);
  }
  const std::string header = big_endian(static_cast<std::uint32_t>(picture.width)) +
                             big_endian(static_cast<std::uint32_t>(picture.height)) + '\x08' +
                             (picture.channels == 3 ? '\x02' : '\0') + std::string(3, '\0');
  std::ofstream file(path, std::ios::binary);
  file << "\x89PNG\r\n\x1a\n" << chunk("IHDR", header) << chunk("IDAT", deflated(rows)) << chunk("IEND", "");
  if (!file.flush())
    fail(ExitCode::kUsage, "--out: cannot write {}: {}", path.string(), std::strerror(errno));
}

}  // namespace trireme
