#include "core/base/file_kind.h"

#include <algorithm>

namespace trireme {

namespace {

using namespace std::string_view_literals;

struct Format {
  std::string_view begin, name;
  std::size_t at = 0;  ///< the offset of `begin` in the file
};

// Formats whose mark has at least three bytes, so that plain data hardly begins so by chance.
constexpr Format kFormats[] = {{"\x1f\x8b\x08"sv, "a gzip file"},
                               {"PK\x03\x04"sv, "a zip file"},
                               {"\x28\xb5\x2f\xfd"sv, "a zstd file"},
                               {"\xfd"
                                "7zXZ\0"sv,
                                "an xz file"},
                               {"BZh"sv, "a bzip2 file"},
                               {"\x04\x22\x4d\x18"sv, "an lz4 file"},
                               {"7z\xbc\xaf\x27\x1c"sv, "a 7z file"},
                               {"\x93NUMPY"sv, "a NumPy file"},
                               {"\x89HDF"sv, "an HDF5 file"},
                               {"PAR1"sv, "a Parquet file"},
                               {"ARROW1"sv, "an Arrow file"},
                               {"SQLite format 3"sv, "an SQLite file"},
                               {"MMIDIDX"sv, "a Megatron index"},
                               {"%PDF-"sv, "a PDF file"},
                               {"\x89PNG\r\n"sv, "a PNG picture"},
                               {"\xff\xd8\xff"sv, "a JPEG picture"},
                               {"GIF8"sv, "a GIF picture"},
                               {"\x7f"
                                "ELF"sv,
                                "a program (ELF)"},
                               {"GGUF"sv, "a GGUF file"},
                               {"ustar"sv, "a tar archive", 257}};

std::string_view text_of(std::span<const std::uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

std::string known_format(std::span<const std::uint8_t> head) {
  const std::string_view text = text_of(head);
  for (const Format& format : kFormats)
    if (text.substr(std::min(format.at, text.size())).starts_with(format.begin))
      return std::string(format.name);
  // A pickle of protocol 4 or 5 begins with a frame, whose size is below 2^40 bytes here. One of protocol 2
  // or 3 begins with its first object, mostly a list, a dictionary, a tuple, a class or a large integer.
  if (text.size() >= 11 && text[0] == '\x80') {
    if ((text[1] == '\x04' || text[1] == '\x05') && text[2] == '\x95' && text.substr(8, 3) == "\0\0\0"sv)
      return "a Python pickle";
    if ((text[1] == '\x02' || text[1] == '\x03') && "](}c\x8a"sv.find(text[2]) != text.npos)
      return "a Python pickle";
  }
  // A safetensors file begins with a length of 64 bits, whose upper half is zero, and a JSON object.
  if (text.size() >= 10 && text.substr(4, 4) == "\0\0\0\0"sv && text.substr(8, 2) == "{\""sv)
    return "a safetensors file";
  return "";
}

std::string wide_text(std::span<const std::uint8_t> head) {
  const std::string_view text = text_of(head);
  if (text.starts_with("\xff\xfe\0\0"sv) || text.starts_with("\0\0\xfe\xff"sv)) return "UTF-32 text";
  if (text.starts_with("\xff\xfe"sv) || text.starts_with("\xfe\xff"sv)) return "UTF-16 text";
  std::size_t zeros_of_four[4] = {0, 0, 0, 0};
  for (std::size_t i = 0; i < head.size(); ++i) zeros_of_four[i % 4] += head[i] == 0;
  // In UTF-32 the highest of a character's four bytes is always zero and the next one nearly always, but the
  // lowest seldom is. The highest byte is the first one in big-endian text, the last one in little-endian
  // text.
  const std::size_t fours = head.size() / 4;
  for (const auto& [first, second] : {std::pair(0, 1), std::pair(3, 2)})
    if (head.size() >= 32 && zeros_of_four[first] >= fours && zeros_of_four[second] * 10 >= fours * 9 &&
        zeros_of_four[3 - first] * 2 <= fours)
      return "UTF-32 text";
  const std::size_t zeros[2] = {zeros_of_four[0] + zeros_of_four[2], zeros_of_four[1] + zeros_of_four[3]};
  // At the even or at the odd positions, a quarter of the bytes is zero even if most of a text is not in
  // Latin letters: its spaces, digits and line feeds have one.
  const auto [few, many] = std::minmax(zeros[0], zeros[1]);
  return head.size() >= 32 && many * 8 >= head.size() && few * 16 <= many ? "UTF-16 text" : "";
}

std::size_t byte_order_mark(std::string_view text) { return text.starts_with("\xef\xbb\xbf") ? 3 : 0; }

}  // namespace trireme
