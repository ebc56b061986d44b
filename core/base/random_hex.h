// Names for attempts that must never meet.
#pragma once

#include <string>

namespace trireme {

/// 16 random hexadecimal digits from the operating system, other ones at every call.
std::string random_name();

}  // namespace trireme
