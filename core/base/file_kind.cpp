#include "core/base/file_kind.h"

#include <algorithm>

namespace trireme {

namespace {

using namespace std::string_view_literals;

struct Format {
  std::string_view begin, name;
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
                               {"%PDF-"sv, "a PDF file"}};

std::string_view text_of(std::span<const std::uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

std::string known_format(std::span<const std::uint8_t> head) {
  const std::string_view text = text_of(head);
  for (const Format& format : kFormats)
    if (text.starts_with(format.begin)) return std::string(format.name);
  return "";
}

std::string wide_text(std::span<const std::uint8_t> head) {
  const std::string_view text = text_of(head);
  if (text.starts_with("\xff\xfe\0\0"sv) || text.starts_with("\0\0\xfe\xff"sv)) return "UTF-32 text";
  if (text.starts_with("\xff\xfe"sv) || text.starts_with("\xfe\xff"sv)) return "UTF-16 text";
  std::size_t zeros[2] = {0, 0};
  for (std::size_t i = 0; i < head.size(); ++i) zeros[i % 2] += head[i] == 0;
  // At the even or at the odd positions, a quarter of the bytes is zero even if most of a text is not in
  // Latin letters: its spaces, digits and line feeds have one.
  const auto [few, many] = std::minmax(zeros[0], zeros[1]);
  return head.size() >= 32 && many * 8 >= head.size() && few * 16 <= many ? "UTF-16 text" : "";
}

std::size_t byte_order_mark(std::string_view text) { return text.starts_with("\xef\xbb\xbf") ? 3 : 0; }

}  // namespace trireme
