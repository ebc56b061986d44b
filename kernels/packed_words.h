// Lossless compression of messages, for links that are slower than the compression.
//
// Neighbouring numbers, such as gradients of one layer, have similar magnitudes, so their exponents need
// three or four bits instead of eight. A block of 64 words stores the smallest exponent among them (frame of
// reference: J. Goldstein, R. Ramakrishnan, U. Shaft, "Compressing relations and indexes", ICDE 1998). For
// each word it stores sign, mantissa and the difference of its exponent to the smallest. float32 gradients of
// one layer shrink to about 0.87 of their size. All bytes are restored exactly, whatever they represent. For
// pairs of bfloat16 the exponent of the second one is packed.
#pragma once

#include <cstddef>
#include <span>

namespace trireme {

/// Returns the largest number of bytes that pack_words() writes for a message of `bytes` bytes.
std::size_t packed_room(std::size_t bytes);

/// Compresses `plain` to `out`, which must have room for packed_room() bytes. Returns the number of bytes,
/// which is less than plain.size(), or 0 if the message does not shrink. It mostly finds that out from the
/// first part of the message.
std::size_t pack_words(std::span<const std::byte> plain, std::byte* out);

/// Decompresses what pack_words() wrote. Returns false if `packed` is not valid or does not decompress to
/// plain.size() bytes; the contents of `plain` are then unspecified.
bool unpack_words(std::span<const std::byte> packed, std::span<std::byte> plain);

}  // namespace trireme
