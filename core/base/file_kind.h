// Recognizes the kind of a file from its first bytes, so that readers of raw data can refuse other files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace trireme {

/// Returns "a gzip file", "a NumPy file" and the like for bytes that begin as a packed or structured file
/// does; an empty text for others. Looks at the first 16 bytes at most.
std::string known_format(std::span<const std::uint8_t> head);

/// Returns "UTF-16 text" or "UTF-32 text" for bytes that begin with such a byte order mark, or that have a
/// zero in every second place as Latin text in UTF-16 has; an empty text for others.
std::string wide_text(std::span<const std::uint8_t> head);

/// Returns the length of a UTF-8 byte order mark at the beginning of `text`: 3, or 0 without one.
std::size_t byte_order_mark(std::string_view text);

}  // namespace trireme
