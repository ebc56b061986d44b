#include "kernels/packed_words.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>

namespace trireme {

namespace {

// What is packed: its length in 8 bytes; then of each block
//   a byte: the bits of a code, and kHasZero; or kNothing, and no more: all bits are 0
//   a byte: the exponent that code 0 stands for; with kHasZero code 0 stands for exponent 0
//   the lower 16 bits of each word; sign and upper 7 bits of each mantissa; the codes, 8 after each other
// and what is left of the words behind the last whole block, and kSlack bytes that codes may be read with.
constexpr std::size_t kBlock = 64;
constexpr std::size_t kBlockBytes = kBlock * sizeof(std::uint32_t);
constexpr std::size_t kMantissaBytes = kBlock * 3;
constexpr std::size_t kLengthBytes = sizeof(std::uint64_t), kSlack = sizeof(std::uint64_t);
constexpr unsigned kHasZero = 0x80, kNothing = 0xff;
/// After so many bytes it is known whether it is worth going on, which it is below this share.
constexpr std::size_t kTrial = 8 * kBlockBytes;
constexpr double kWorth = 0.97;

static_assert(std::endian::native == std::endian::little);  // codes lie one behind the other

using Words = std::uint32_t[kBlock];

struct Exponents {
  std::uint32_t any = 0, zero = 0, least = 254, most = 0;
};

Exponents exponents_of(const Words& words) {
  Exponents e;
  for (const std::uint32_t word : words) {
    const std::uint32_t exponent = word >> 23 & 255;
    e.any |= word;
    e.zero |= exponent == 0;
    e.most = std::max(e.most, exponent);
    e.least = std::min(e.least, exponent - 1);  // of those that are not 0
  }
  // Code 0 is one below the least, where there is an exponent 0.
  if (!e.zero) ++e.least;
  e.most = std::max(e.most, e.least);
  return e;
}

std::byte* pack_block(const Words& words, std::byte* out) {
  const Exponents e = exponents_of(words);
  if (e.any == 0) {
    *out++ = std::byte{kNothing};
    return out;
  }
  const int bits = std::bit_width(e.most - e.least);
  *out++ = static_cast<std::byte>(static_cast<unsigned>(bits) | (e.zero ? kHasZero : 0));
  *out++ = static_cast<std::byte>(e.least);
  std::uint16_t low[kBlock];
  std::uint8_t high[kBlock], codes[kBlock];
  for (std::size_t i = 0; i < kBlock; ++i) low[i] = static_cast<std::uint16_t>(words[i]);
  for (std::size_t i = 0; i < kBlock; ++i)
    high[i] = static_cast<std::uint8_t>((words[i] >> 16 & 127) | (words[i] >> 24 & 128));
  for (std::size_t i = 0; i < kBlock; ++i) {
    const std::uint32_t exponent = words[i] >> 23 & 255;
    codes[i] = static_cast<std::uint8_t>(std::max(exponent, e.least) - e.least);
  }
  std::memcpy(out, low, sizeof low);
  std::memcpy(out + sizeof low, high, sizeof high);
  out += kMantissaBytes;
  for (std::size_t i = 0; i < kBlock; i += 8, out += bits) {
    std::uint64_t packed = 0;
    for (std::size_t j = 0; j < 8; ++j)
      packed |= std::uint64_t{codes[i + j]} << j * static_cast<unsigned>(bits);
    std::memcpy(out, &packed, sizeof packed);
  }
  return out;
}

void unpack_codes(const std::byte* in, unsigned bits, std::uint8_t (&codes)[kBlock]) {
  const std::uint64_t mask = (1U << bits) - 1;
  for (std::size_t i = 0; i < kBlock; i += 8, in += bits) {
    std::uint64_t packed = 0, spread = 0;
    std::memcpy(&packed, in, sizeof packed);
    for (unsigned j = 0; j < 8; ++j) spread |= (packed >> j * bits & mask) << 8 * j;
    std::memcpy(codes + i, &spread, sizeof spread);
  }
}

/// Unpacks one block and returns the beginning of the next, or null if no valid block ends by `last`.
const std::byte* unpack_block(const std::byte* in, const std::byte* last, Words& words) {
  if (last - in < 1) return nullptr;
  const auto kind = static_cast<unsigned>(*in++);
  if (kind == kNothing) {
    std::memset(words, 0, sizeof words);
    return in;
  }
  const unsigned zero = kind & kHasZero, bits = kind & ~kHasZero;
  if (bits > 8 || last - in < static_cast<std::ptrdiff_t>(1 + kMantissaBytes + kBlock / 8 * bits))
    return nullptr;
  const auto least = static_cast<std::uint32_t>(*in++);
  std::uint16_t low[kBlock];
  std::uint8_t high[kBlock], codes[kBlock];
  std::memcpy(low, in, sizeof low);
  std::memcpy(high, in + sizeof low, sizeof high);
  in += kMantissaBytes;
  unpack_codes(in, bits, codes);
  for (std::size_t i = 0; i < kBlock; ++i) {
    const std::uint32_t exponent = codes[i] != 0 || zero == 0 ? (codes[i] + least) & 255 : 0;
    words[i] = low[i] | (high[i] & 127U) << 16 | (high[i] & 128U) << 24 | exponent << 23;
  }
  return in + kBlock / 8 * bits;
}

}  // namespace

std::size_t packed_room(std::size_t bytes) { return kLengthBytes + bytes + bytes / kBlockBytes * 2 + kSlack; }

std::size_t pack_words(std::span<const std::byte> plain, std::byte* out) {
  const std::uint64_t length = plain.size();
  std::byte* to = out;
  std::memcpy(to, &length, kLengthBytes);
  to += kLengthBytes;
  std::size_t done = 0;
  for (; done + kBlockBytes <= plain.size(); done += kBlockBytes) {
    Words words;
    std::memcpy(words, plain.data() + done, kBlockBytes);
    to = pack_block(words, to);
    if (done + kBlockBytes == kTrial && static_cast<double>(to - out) > kWorth * kTrial) return 0;
  }
  const std::size_t left = plain.size() - done;
  if (left > 0) std::memcpy(to, plain.data() + done, left);
  std::memset(to + left, 0, kSlack);
  const auto packed = static_cast<std::size_t>(to - out) + left + kSlack;
  return packed < plain.size() ? packed : 0;
}

bool unpack_words(std::span<const std::byte> packed, std::span<std::byte> plain) {
  std::uint64_t length = 0;
  if (packed.size() < kLengthBytes + kSlack) return false;
  std::memcpy(&length, packed.data(), kLengthBytes);
  if (length != plain.size()) return false;
  const std::byte* in = packed.data() + kLengthBytes;
  const std::byte* const last = packed.data() + packed.size() - kSlack;
  std::size_t done = 0;
  for (; done + kBlockBytes <= plain.size(); done += kBlockBytes) {
    Words words;
    in = unpack_block(in, last, words);
    if (in == nullptr) return false;
    std::memcpy(plain.data() + done, words, kBlockBytes);
  }
  const std::size_t left = plain.size() - done;
  if (static_cast<std::size_t>(last - in) != left) return false;
  if (left > 0) std::memcpy(plain.data() + done, in, left);
  return true;
}

}  // namespace trireme
