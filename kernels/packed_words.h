// Messages made shorter without loss: for links that are slower than the work.
//
// Numbers that lie together, such as gradients of one layer, are of like size: their exponents need three or
// four bits, not eight. A block of 64 words says the least exponent among them (frame of reference: J.
// Goldstein, R. Ramakrishnan, U. Shaft, "Compressing relations and indexes", ICDE 1998), and of each word
// sign, mantissa and how far its exponent lies above that. Of float32 of one layer about 0.87 is left. Any
// bytes come back as they were, whatever they mean: of pairs of bfloat16 the second one's exponent is packed.
#pragma once

#include <cstddef>
#include <span>

namespace trireme {

/// What pack_words() may write for a message of so many bytes.
std::size_t packed_room(std::size_t bytes);

/// Writes `plain` in fewer bytes to `out` (packed_room() of them) and returns how many, at least one less; 0
/// if that cannot be, mostly after a look at its first part.
std::size_t pack_words(std::span<const std::byte> plain, std::byte* out);

/// The reverse, of what pack_words() wrote. False if `packed` is no such thing or not of plain.size() bytes;
/// `plain` is spoilt then.
bool unpack_words(std::span<const std::byte> packed, std::span<std::byte> plain);

}  // namespace trireme
