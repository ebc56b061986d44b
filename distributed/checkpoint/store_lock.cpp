#include "distributed/checkpoint/store_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "kernels/error.h"

namespace trireme {

namespace {

/// "process 12 on somewhere"
std::string own_name() {
  char host[256] = "?";
  gethostname(host, sizeof host - 1);
  return fmt::format("process {} on {}", getpid(), host);
}

std::string name_of_holder(int file) {
  char text[512];
  const ssize_t size = pread(file, text, sizeof text, 0);
  return size > 0 ? std::string(text, static_cast<std::size_t>(size)) : "of unknown name";
}

}  // namespace

StoreLock::StoreLock(const std::filesystem::path& directory) : path_(directory / ".lock") {
  for (;;) {
    file_ = open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (file_ < 0)
      fail(ExitCode::kUsage, "checkpoints cannot be written: cannot open '{}': {}", path_.string(),
           std::strerror(errno));
    if (flock(file_, LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK) break;  // this file system has no locks
      const std::string holder = name_of_holder(file_);
      close(file_);
      fail(ExitCode::kUsage, "another job ({}) still writes to '{}'", holder, directory.string());
    }
    // Whoever held it before may have removed the file between the two calls.
    struct stat held {
    }, named{};
    if (fstat(file_, &held) == 0 && stat(path_.c_str(), &named) == 0 && held.st_ino == named.st_ino) break;
    close(file_);
  }
  const std::string name = own_name();
  // The name is for people; the lock holds without it, on a full disk too.
  if (ftruncate(file_, 0) != 0 || pwrite(file_, name.data(), name.size(), 0) < 0) return;
}

StoreLock::~StoreLock() {
  unlink(path_.c_str());
  close(file_);
}

}  // namespace trireme
