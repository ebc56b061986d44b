// CRC-32C (Castagnoli), the checksum of RFC 3720: finds damaged bytes, does not resist an attacker.
#pragma once

#include <cstddef>
#include <cstdint>

namespace trireme {

/// CRC-32C of `size` bytes. `seed` is the CRC of the bytes before them, so that
/// crc32c(b, n, crc32c(a, m)) is the CRC of a followed by b. Uses SSE4.2 where the CPU has it.
/// Thread-safe.
std::uint32_t crc32c(const void* data, std::size_t size, std::uint32_t seed = 0);

/// Computes the same checksum with tables, on every CPU. It is public so that tests can compare the two.
std::uint32_t crc32c_by_table(const void* data, std::size_t size, std::uint32_t seed = 0);

}  // namespace trireme
