#include "core/base/text_file.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <span>

#include "core/base/file_kind.h"

namespace trireme {

namespace {

/// Returns why the wait for more bytes of a pipe was in vain; an empty text when there are some, or the end.
std::string wait_for_bytes(int file, std::chrono::milliseconds patience) {
  const auto end = std::chrono::steady_clock::now() + patience;
  for (;;) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now()).count();
    pollfd ready{file, POLLIN, 0};
    const int count = poll(&ready, 1, static_cast<int>(std::max<long long>(0, left)));
    if (count > 0) return "";
    if (count == 0)
      return fmt::format("nothing has come out of this pipe for {:g} s", patience.count() / 1e3);
    if (errno != EINTR) return std::strerror(errno);
  }
}

/// Appends all bytes of an open file to `text`. Returns what went wrong; an empty text if nothing did.
std::string read_all(int file, std::chrono::milliseconds patience, std::string& text) {
  struct stat status {};
  if (fstat(file, &status) != 0) return std::strerror(errno);
  if (S_ISDIR(status.st_mode)) return "it is a folder";
  const bool waits = !S_ISREG(status.st_mode);
  std::array<char, 65536> chunk;
  for (;;) {
    if (const std::string why = waits ? wait_for_bytes(file, patience) : ""; !why.empty()) return why;
    const ssize_t got = ::read(file, chunk.data(), chunk.size());
    if (got == 0) return "";
    if (got > 0)
      text.append(chunk.data(), static_cast<std::size_t>(got));
    else if (errno != EINTR && errno != EAGAIN)
      return std::strerror(errno);
  }
}

}  // namespace

std::string read_text(const std::filesystem::path& path, ExitCode code, std::chrono::milliseconds patience) {
  // Non-blocking, because opening a pipe would otherwise wait for its writer without an end.
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  std::string text;
  std::string why = file < 0 ? std::strerror(errno) : read_all(file, patience, text);
  if (file >= 0) ::close(file);
  const std::span head(reinterpret_cast<const std::uint8_t*>(text.data()),
                       std::min<std::size_t>(4096, text.size()));
  for (const std::string& format : {known_format(head), wide_text(head)})
    if (why.empty() && !format.empty()) why = "it is " + format;
  if (!why.empty()) fail(code, "'{}': cannot read this file as text: {}", path.string(), why);
  return text.substr(byte_order_mark(text));
}

}  // namespace trireme
