#include "examples/train_gpt/text.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "core/base/file_kind.h"
#include "kernels/error.h"
#include "kernels/rng.h"

namespace trireme {

namespace {

/// Reads up to 16 KiB of a file from byte `at` on.
std::vector<std::uint8_t> read_part(int file, std::int64_t at) {
  std::vector<std::uint8_t> part(16384);
  const ssize_t got = ::pread(file, part.data(), part.size(), at);
  part.resize(static_cast<std::size_t>(std::max<ssize_t>(0, got)));
  return part;
}

std::uint32_t word_at(std::span<const std::uint8_t> bytes, std::size_t at, int width) {
  std::uint32_t word = 0;
  for (int i = width; i-- > 0;) word = word << 8 | bytes[at + static_cast<std::size_t>(i)];
  return word;
}

/// Returns true if a part of a file seems to hold numbers of 32 or 64 bits. The part begins at a multiple of
/// 8 bytes.
bool is_wide_numbers(std::span<const std::uint8_t> part) {
  // No vocabulary has more than 3 * 65536 tokens, so the upper 16 bits of wider numbers are at most 2. Some
  // files have -1 in place of a missing token.
  std::uint32_t largest_upper = 0;
  std::size_t tokens = 0;
  const std::size_t pairs = part.size() / 4;
  for (std::size_t i = 0; i < pairs; ++i) {
    const std::uint32_t lower = word_at(part, 4 * i, 2), upper = word_at(part, 4 * i + 2, 2);
    if (lower == 0xffff && upper == 0xffff) continue;
    if (lower > 2) ++tokens;
    largest_upper = std::max(largest_upper, upper);
  }
  return pairs >= 8 && largest_upper <= 2 && tokens > pairs / 4;
}

/// Returns true if a part of a file is at least 64 bytes of UTF-8 text without control characters other than
/// tabs and line ends. The last character may be cut off.
bool is_plain_text(std::span<const std::uint8_t> part) {
  int missing = 0;  // number of bytes still missing from the current character
  for (const std::uint8_t byte : part) {
    const bool continues = (byte & 0xc0) == 0x80;
    if (continues != (missing > 0)) return false;
    if (continues)
      --missing;
    else if (byte >= 0xc2 && byte < 0xf5)
      missing = byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : 3;
    else if ((byte < ' ' && byte != '\n' && byte != '\r' && byte != '\t') || byte >= 0x7f)
      return false;
  }
  return part.size() >= 64;
}

/// Returns an empty text if the file may hold uint16 tokens. Otherwise it returns what the file is and what
/// to do. `size` is the file's size in bytes, and `head` its beginning.
std::string not_tokens(int file, std::int64_t size, std::span<const std::uint8_t> head) {
  // llm.c's files begin with a magic number: 20240520 for GPT-2's tokens, 20240801 for Llama 3's.
  if (head.size() >= 4)
    if (const std::uint32_t magic = word_at(head, 0, 4); magic == 20240520 || magic == 20240801)
      return "begins with llm.c's header of 1024 bytes, which is not read yet: cut it off (tail -c +1025)";
  if (is_plain_text(head)) return "is text: name it with --data text:FILE";
  // Examine four parts of the file, because it may begin with padding.
  for (const std::int64_t part : {0, 1, 2, 3})
    if (is_wide_numbers(read_part(file, size / 4 * part / 8 * 8)))
      return "holds numbers of 32 or 64 bits: write the tokens as uint16";
  return "";
}

}  // namespace

TokenFile::TokenFile(const std::string& spec) {
  const std::size_t colon = std::min(spec.find(':'), spec.size());
  const std::string kind = spec.substr(0, colon);
  if ((kind != "text" && kind != "tokens") || colon + 1 >= spec.size())
    fail(ExitCode::kUsage, "--data: '{}' is not one of text:FILE, tokens:FILE", spec);
  path_ = spec.substr(colon + 1);
  width_ = kind == "text" ? 1 : 2;
  // Open without blocking, so that a named pipe gives an error and does not wait for a writer.
  file_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  const auto refuse = [&](const std::string& why) {
    if (file_ >= 0) ::close(file_);
    fail(ExitCode::kData, "{}: {}; --data {}:FILE names a file of {}", path_.string(), why, kind,
         is_text() ? "text" : "little-endian uint16 tokens");
  };
  if (file_ < 0) refuse(std::strerror(errno));
  struct stat status {};
  if (::fstat(file_, &status) != 0) refuse(std::strerror(errno));
  if (!S_ISREG(status.st_mode)) refuse(S_ISDIR(status.st_mode) ? "is a folder" : "is not a regular file");
  const std::vector<std::uint8_t> head = read_part(file_, 0);
  if (const std::string format = known_format(head); !format.empty())
    refuse("is " + format + ", which is not read: unpack or convert it");
  if (const std::string wide = is_text() ? wide_text(head) : ""; !wide.empty())
    refuse("is " + wide + ", which is not read: convert it to UTF-8 (iconv -t UTF-8)");
  if (const std::string what = is_text() ? "" : not_tokens(file_, status.st_size, head); !what.empty())
    refuse(what);
  if (status.st_size % width_ != 0)
    refuse(fmt::format("has {} bytes, which is no whole number of tokens", status.st_size));
  size_ = status.st_size / width_;
}

TokenFile::~TokenFile() { ::close(file_); }

void TokenFile::read(std::int64_t first, std::span<std::int64_t> to) const {
  std::vector<std::uint8_t> bytes(to.size() * static_cast<std::size_t>(width_));
  for (std::size_t got = 0; got < bytes.size();) {
    const ssize_t more = ::pread(file_, bytes.data() + got, bytes.size() - got,
                                 first * width_ + static_cast<std::int64_t>(got));
    if (more < 0 && errno == EINTR) continue;
    if (more <= 0)
      fail(ExitCode::kData, "{}: cannot read {} bytes from {}: {}; is the file being changed?",
           path_.string(), bytes.size(), first * width_, more < 0 ? std::strerror(errno) : "it ends before");
    got += static_cast<std::size_t>(more);
  }
  for (std::size_t i = 0; i < to.size(); ++i) {
    to[i] = width_ == 1 ? bytes[i] : bytes[2 * i] + 256 * bytes[2 * i + 1];
    if (to[i] >= vocabulary())
      fail(ExitCode::kData,
           "{}: token {} is {}, but GPT-2's vocabulary has {}; is this a file of uint16 tokens?",
           path_.string(), first + static_cast<std::int64_t>(i), to[i], vocabulary());
  }
}

Windows::Windows(std::shared_ptr<const TokenFile> file, std::int64_t context, Split split)
    : file_(std::move(file)), context_(context), moves_(split == Split::kTrain) {
  const std::int64_t test = std::max(file_->size() / 10, context + 1);
  const std::int64_t to_train = (file_->size() - test - 1) / context - 1;  // leaves room to move the windows
  if (to_train < 1)
    fail(ExitCode::kData,
         "{}: {} tokens are too few for windows of {}; use a file of at least {} or a model with a shorter "
         "context",
         file_->path().string(), file_->size(), context, 3 * context + 2);
  size_ = moves_ ? to_train : std::min((test - 1) / context, std::max<std::int64_t>(1, 100000 / context));
  if (!moves_) first_ = file_->size() - test;
}

std::vector<SampleField> Windows::fields() const {
  return {{.shape = {context_}, .dtype = DType::kInt64}, {.shape = {context_}, .dtype = DType::kInt64}};
}

void Windows::read(const SampleId& id, std::span<std::byte* const> to) const {
  std::int64_t begin = first_ + id.index * context_;
  if (moves_)
    begin +=
        to_bounded(philox(random_key(id.seed, 0x77696e646f77, 0), 0, static_cast<std::uint64_t>(id.epoch))[0],
                   static_cast<std::uint32_t>(context_));
  std::vector<std::int64_t> tokens(static_cast<std::size_t>(context_) + 1);
  file_->read(begin, tokens);
  const std::size_t bytes = static_cast<std::size_t>(context_) * sizeof(std::int64_t);
  std::memcpy(to[0], tokens.data(), bytes);
  std::memcpy(to[1], tokens.data() + 1, bytes);
}

namespace {

/// Returns the number of bytes of the UTF-8 character (RFC 3629) that begins at `at`, or 0 if there is none
/// or a terminal should not show it.
std::size_t character_at(const std::vector<std::int64_t>& bytes, std::size_t at) {
  const std::int64_t first = bytes[at];
  if (first < 0x80) return first >= ' ' && first != 0x7f ? 1 : first == '\n' || first == '\t';
  const std::size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || at + length > bytes.size()) return 0;
  std::int64_t code = first & (0x7f >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((bytes[at + i] & 0xc0) != 0x80) return 0;
    code = code << 6 | (bytes[at + i] & 0x3f);
  }
  // The smallest code point of each length in bytes. Those from 0x80 to 0x9f are control characters.
  constexpr std::int64_t kSmallest[] = {0, 0, 0xa0, 0x800, 0x10000};
  const bool is_surrogate = code >= 0xd800 && code < 0xe000;
  return code >= kSmallest[length] && code <= 0x10ffff && !is_surrogate ? length : 0;
}

}  // namespace

std::string shown(const std::vector<std::int64_t>& tokens, bool is_text) {
  if (!is_text) return fmt::format("{}", fmt::join(tokens, " "));
  std::string text;
  for (std::size_t at = 0; at < tokens.size();) {
    const std::size_t length = character_at(tokens, at);
    if (length == 0) text += '?';
    for (std::size_t i = 0; i < length; ++i) text += static_cast<char>(tokens[at + i]);
    at += std::max<std::size_t>(1, length);
  }
  return text;
}

}  // namespace trireme
