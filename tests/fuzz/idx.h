// Checks that the IDX reader must pass for any input bytes.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>

#include "core/data/idx.h"
#include "kernels/error.h"

namespace trireme::fuzz {

/// Decodes `bytes` as images or labels. Aborts unless they are decoded in full or refused with a message of
/// one line. Returns true if they were decoded.
inline bool try_idx(std::span<const std::uint8_t> bytes, int rank) {
  const auto require = [](bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "fuzz idx: %s\n", what);
    std::abort();
  };
  try {
    const IdxArray array = decode_idx(bytes, "fuzz", rank);
    unsigned __int128 product = 1;
    for (const std::uint32_t dim : array.dims) product *= dim;
    require(array.dims.size() == static_cast<std::size_t>(rank), "wrong number of dimensions");
    require(product == array.values.size() && product > 0, "values do not fill the dimensions");
    // Deflate compresses at most 1032 bytes into one.
    require(array.values.size() <= bytes.size() * 1032, "more values than the bytes can hold");
    return true;
  } catch (const Error& error) {
    const std::string message = error.what();
    require(error.code() == ExitCode::kData, "an error that is not kData");
    require(message.starts_with("fuzz: ") && message.find('\n') == std::string::npos,
            "not one line that names the file");
    return false;
  }
}

}  // namespace trireme::fuzz
