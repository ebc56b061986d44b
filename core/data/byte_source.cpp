#include "core/data/byte_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <new>
#include <system_error>

#include "kernels/error.h"

namespace trireme {
namespace {

/// zlib counts in 32 bits; larger buffers are handed over in pieces.
constexpr std::size_t kPiece = std::size_t{1} << 30;

bool starts_like_gzip(std::span<const std::uint8_t> bytes) {
  return bytes.size() >= 2 && bytes[0] == 0x1f && bytes[1] == 0x8b;
}

std::string reason(int error) { return std::generic_category().message(error); }

class File {
 public:
  explicit File(const std::string& path)
      : descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
  ~File() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int descriptor() const { return descriptor_; }

 private:
  int descriptor_;
};

std::vector<std::uint8_t> allocate(const std::string& path, std::size_t size) {
  try {
    return std::vector<std::uint8_t>(size);
  } catch (const std::exception&) {
    fail(ExitCode::kData, "{}: its {} bytes do not fit into memory; split it or use a larger machine", path,
         size);
  }
}

}  // namespace

std::vector<std::uint8_t> read_file(const std::string& path, const std::string& advice) {
  // Non-blocking, so that a named pipe in the way is an error rather than a wait for ever.
  const File file(path);
  if (file.descriptor() < 0) {
    const int error = errno;
    fail(ExitCode::kData, "{}: cannot open: {}; {}", path, reason(error), advice);
  }
  struct stat status {};
  if (::fstat(file.descriptor(), &status) != 0 || !S_ISREG(status.st_mode))
    fail(ExitCode::kData, "{}: is not a regular file; {}", path, advice);
  std::vector<std::uint8_t> bytes = allocate(path, static_cast<std::size_t>(status.st_size));
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t got = ::read(file.descriptor(), bytes.data() + done, std::min(bytes.size() - done, kPiece));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      const int error = errno;
      fail(ExitCode::kData, "{}: cannot read at byte {} of {}: {}; check the disk", path, done, bytes.size(),
           reason(error));
    }
    if (got == 0)
      fail(ExitCode::kData, "{}: shrank from {} to {} bytes while being read; copy it again", path,
           bytes.size(), done);
    done += static_cast<std::size_t>(got);
  }
  return bytes;
}

struct ByteSource::Gzip {
  z_stream stream{};

  Gzip() {
    // 16 asks zlib for the gzip wrapper, whose checksum it then verifies.
    if (inflateInit2(&stream, 16 + MAX_WBITS) != Z_OK) throw std::bad_alloc();
  }
  ~Gzip() { inflateEnd(&stream); }
  Gzip(const Gzip&) = delete;
  Gzip& operator=(const Gzip&) = delete;
};

ByteSource::ByteSource(std::span<const std::uint8_t> raw, std::string name)
    : raw_(raw), name_(std::move(name)) {
  if (starts_like_gzip(raw_)) gzip_ = std::make_unique<Gzip>();
}

ByteSource::~ByteSource() = default;

std::size_t ByteSource::read(std::uint8_t* to, std::size_t size) {
  std::size_t done = 0;
  while (gzip_ && done < size) done += inflate_some(to + done, size - done);
  if (!gzip_ && done < size) {
    // Plain bytes; none are left after the last gzip member.
    const std::size_t count = std::min(size - done, raw_.size() - position_);
    if (count > 0) std::memcpy(to + done, raw_.data() + position_, count);
    position_ += count;
    done += count;
    inflated_ += count;
  }
  return done;
}

std::uint64_t ByteSource::drain() {
  std::array<std::uint8_t, 16384> scratch;
  std::uint64_t total = 0;
  while (const std::size_t count = read(scratch.data(), scratch.size())) total += count;
  return total;
}

std::size_t ByteSource::inflate_some(std::uint8_t* to, std::size_t size) {
  z_stream& stream = gzip_->stream;
  const uInt in = static_cast<uInt>(std::min(raw_.size() - position_, kPiece));
  const uInt out = static_cast<uInt>(std::min(size, kPiece));
  stream.next_in = const_cast<Bytef*>(raw_.data() + position_);  // zlib does not write through it
  stream.avail_in = in;
  stream.next_out = to;
  stream.avail_out = out;
  const int code = inflate(&stream, Z_NO_FLUSH);
  const std::size_t produced = out - stream.avail_out;
  position_ += in - stream.avail_in;
  inflated_ += produced;
  if (code == Z_STREAM_END)
    finish_member();
  else if (code != Z_OK)
    fail_inflate(code);
  return produced;
}

void ByteSource::finish_member() {
  const std::span<const std::uint8_t> rest = raw_.subspan(position_);
  if (rest.empty()) {
    gzip_.reset();
  } else if (starts_like_gzip(rest)) {
    inflateReset(&gzip_->stream);
  } else {
    fail(ExitCode::kData,
         "{}: the gzip stream ends at byte {} but the file has {} bytes: {} bytes of something else "
         "follow; copy or download it again",
         name_, position_, raw_.size(), rest.size());
  }
}

void ByteSource::fail_inflate(int code) {
  if (code == Z_MEM_ERROR) throw std::bad_alloc();
  // There is always room for output, so a lack of progress means a lack of input.
  if (code == Z_BUF_ERROR)
    fail(ExitCode::kData,
         "{}: the gzip stream is cut short: its {} bytes end inside the compressed data, after {} "
         "bytes of content; copy or download it again",
         name_, raw_.size(), inflated_);
  const z_stream& stream = gzip_->stream;
  const std::string_view what = stream.msg != nullptr ? stream.msg : "unknown error";
  if (what == "incorrect data check" && position_ >= 4) {
    const std::uint8_t* stored = raw_.data() + position_ - 4;
    fail(ExitCode::kData,
         "{}: the gzip checksum is wrong: stored {:02x}{:02x}{:02x}{:02x}, computed {:08x} over {} "
         "bytes of content; copy or download it again",
         name_, stored[3], stored[2], stored[1], stored[0], stream.adler, inflated_);
  }
  fail(ExitCode::kData, "{}: the gzip stream is damaged at byte {} of {}: {}; copy or download it again",
       name_, position_, raw_.size(), what);
}

}  // namespace trireme
