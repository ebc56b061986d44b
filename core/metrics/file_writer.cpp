#include "core/metrics/file_writer.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>

#include "kernels/error.h"

namespace trireme {

namespace {

[[noreturn]] void fail_errno(const std::filesystem::path& path, const char* what, int error) {
  fail(ExitCode::kUsage, "cannot {} {}: {}{}", what, path.string(), std::strerror(error),
       error == ENOSPC ? ": free space and run again" : "");
}

int mode_flags(FileWriter::Mode mode) {
  switch (mode) {
    case FileWriter::Mode::kNew:
      return O_EXCL;
    case FileWriter::Mode::kDraft:
      return O_TRUNC;
    case FileWriter::Mode::kAppend:
      return 0;
  }
  return 0;
}

}  // namespace

FileWriter::FileWriter(std::filesystem::path path, Mode mode)
    : path_(std::move(path)), draft_(mode == Mode::kDraft) {
  std::error_code error;
  if (path_.has_parent_path()) std::filesystem::create_directories(path_.parent_path(), error);
  if (error) fail_errno(path_.parent_path(), "make folder", error.value());
  constexpr int kFlags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC;
  fd_ = open(path_.c_str(), kFlags | O_NONBLOCK | mode_flags(mode), 0666);
  if (fd_ < 0 && errno == ENXIO && std::filesystem::is_fifo(path_, error))
    fail(ExitCode::kUsage, "cannot open {}: no process reads this pipe; start its reader first",
         path_.string());
  if (fd_ < 0) fail_errno(path_, "open", errno);
  // Only opening must not wait. Writes do, or lines would be lost in a full pipe.
  fcntl(fd_, F_SETFL, fcntl(fd_, F_GETFL) & ~O_NONBLOCK);
}

FileWriter::~FileWriter() {
  ::close(fd_);
  if (draft_) unlink(path_.c_str());
}

std::int64_t FileWriter::size() const {
  struct stat now {};
  return fstat(fd_, &now) == 0 && S_ISREG(now.st_mode) ? now.st_size : 0;
}

void FileWriter::lock() {
  struct stat now {};
  const bool regular = fstat(fd_, &now) == 0 && S_ISREG(now.st_mode);
  if (regular && flock(fd_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
    fail(ExitCode::kUsage, "another job still writes to {}: choose another file, or wait for its end",
         path_.string());
}

void FileWriter::write(std::string_view bytes) {
  struct stat before {};
  const bool regular = fstat(fd_, &before) == 0 && S_ISREG(before.st_mode);
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
    if (written >= 0) {
      bytes.remove_prefix(static_cast<std::size_t>(written));
    } else if (errno != EINTR) {
      const int error = errno;
      // The write's own failure is the one to report, whatever becomes of the cut.
      if (regular && ftruncate(fd_, before.st_size) != 0) errno = 0;
      fail_errno(path_, "write to", error);
    }
  }
}

void FileWriter::truncate(std::int64_t size) {
  if (ftruncate(fd_, size) != 0) fail_errno(path_, "truncate", errno);
}

void FileWriter::sync() {
  if (fsync(fd_) != 0) fail_errno(path_, "flush", errno);
}

void FileWriter::rename(const std::filesystem::path& to) {
  std::error_code error;
  std::filesystem::rename(path_, to, error);
  if (error)
    fail(ExitCode::kUsage, "cannot rename {} to {}: {}", path_.string(), to.string(), error.message());
  path_ = to;
  draft_ = false;
}

}  // namespace trireme
