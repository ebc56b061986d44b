// Pieces of text that several writers here need.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace trireme {

/// `text` as a JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD.
std::string json_quoted(std::string_view text);
/// Digits in groups of three: 12,345.
std::string grouped_digits(std::int64_t value);

}  // namespace trireme
