#include "core/base/random_hex.h"

#include <sys/random.h>

#include <cerrno>
#include <cstring>

#include "kernels/error.h"

namespace trireme {

std::string random_hex(std::size_t digits) {
  unsigned char bytes[256];  // as many as getrandom gives in one piece
  const std::size_t count = (digits + 1) / 2;
  TRIREME_CHECK(count <= sizeof bytes, "random_hex: {} digits are too many", digits);
  if (getrandom(bytes, count, 0) != static_cast<ssize_t>(count))
    fail(ExitCode::kUsage, "cannot get random bytes: {}", std::strerror(errno));
  std::string text;
  for (std::size_t i = 0; i < count; ++i) text += fmt::format("{:02x}", bytes[i]);
  text.resize(digits);
  return text;
}

}  // namespace trireme
