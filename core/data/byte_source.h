// Reading files that may be compressed with gzip.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace trireme {

/// The bytes of the regular file `path` as they lie on disk.
/// Fails with kData if it is missing, not a regular file, unreadable or too large for memory;
/// `advice` says what to do about a missing one.
std::vector<std::uint8_t> read_file(const std::string& path, const std::string& advice);

/// Reads bytes front to back, inflating them if they start like a gzip file (one or more members).
/// Not safe to use from two threads. Memory: the window of zlib, whatever the bytes claim.
class ByteSource {
 public:
  /// `raw` stays the caller's and must outlive this; `name` is the file's name in errors.
  ByteSource(std::span<const std::uint8_t> raw, std::string name);
  ~ByteSource();
  ByteSource(const ByteSource&) = delete;
  ByteSource& operator=(const ByteSource&) = delete;

  /// Reads up to `size` bytes; fewer only at the end of the data.
  /// Fails with kData if the gzip stream is damaged, cut short or followed by something else.
  std::size_t read(std::uint8_t* to, std::size_t size);

  /// Reads to the end, which checks the checksum of the last gzip member, and counts what was left.
  std::uint64_t drain();

 private:
  struct Gzip;

  std::size_t inflate_some(std::uint8_t* to, std::size_t size);
  void finish_member();
  [[noreturn]] void fail_inflate(int code);

  std::span<const std::uint8_t> raw_;
  std::string name_;
  std::size_t position_ = 0;    ///< in raw_
  std::uint64_t inflated_ = 0;  ///< bytes given out so far
  std::unique_ptr<Gzip> gzip_;  ///< null when the bytes are plain, or used up
};

}  // namespace trireme
