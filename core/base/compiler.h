// The compiler that compiled this program.
#pragma once

namespace trireme {

/// "GCC 12.2.0" or "Clang 14.0.6".
constexpr const char* compiler_name() {
#if defined(__clang__)
  return "Clang " __clang_version__;
#else
  return "GCC " __VERSION__;
#endif
}

}  // namespace trireme
