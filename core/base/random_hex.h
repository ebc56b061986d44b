// Names and tokens that must never meet another.
#pragma once

#include <cstddef>
#include <string>

namespace trireme {

/// `digits` (at most 512) random hexadecimal digits from the operating system, other ones at every call.
std::string random_hex(std::size_t digits);

}  // namespace trireme
