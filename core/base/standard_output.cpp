#include "core/base/standard_output.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <initializer_list>

namespace trireme {

void hold_standard_files() {
  for (const int number : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(number, F_GETFD) >= 0) continue;
    // Writing to standard output has to go on failing; open takes the lowest number that is free.
    const int mode = number == STDERR_FILENO ? O_WRONLY : O_RDONLY;
    if (open("/dev/null", mode) < 0) return;
  }
}

int checked_output(int code) {
  errno = 0;
  const bool flushed = std::fflush(stdout) == 0;
  const int reason = errno;
  if ((flushed && !std::ferror(stdout)) || code != 0) return code;
  std::fprintf(stderr, "standard output could not be written%s%s; the output is incomplete\n",
               reason == 0 ? "" : ": ", reason == 0 ? "" : std::strerror(reason));
  return 1;
}

}  // namespace trireme
