#include "core/base/file_system.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <system_error>

#include "core/base/progress.h"

namespace trireme {

namespace fs = std::filesystem;

namespace {

/// Owns a file descriptor.
class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  operator int() const { return number_; }
  int release() { return std::exchange(number_, -1); }

 private:
  int number_;
};

// Opening must not wait: O_NONBLOCK keeps a pipe put in the place of a file from blocking us for ever.
int open_existing(const char* what, const fs::path& path, int flags) {
  const int number = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | flags);
  if (number < 0) throw FileError(what, path, errno);
  return number;
}

class RealOutputFile : public OutputFile {
 public:
  RealOutputFile(fs::path path, int number) : path_(std::move(path)), file_(number) {}

  void append(std::span<const std::byte> bytes) override {
    while (!bytes.empty()) {
      // Linux writes at most 2 GiB at once; a smaller cap keeps a failing disk from going unnoticed for long.
      const auto count = ::write(file_, bytes.data(), std::min<std::size_t>(bytes.size(), 64u << 20));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) throw FileError("write", path_, errno);
      bytes = bytes.subspan(static_cast<std::size_t>(count));
      note_progress();
    }
  }

  void sync() override {
    if (::fsync(file_) != 0) throw FileError("synchronize", path_, errno);
    note_progress();
  }

  void close() override {
    if (::close(file_.release()) != 0) throw FileError("close", path_, errno);
  }

 private:
  fs::path path_;
  Descriptor file_;
};

}  // namespace

FileError::FileError(const char* what, const fs::path& path, int number)
    : Error(ExitCode::kCheckpoint,
            fmt::format("cannot {} '{}': {}{}", what, path.string(), std::generic_category().message(number),
                        number == ENOSPC ? ": free space and run again" : "")),
      number_(number) {}

std::unique_ptr<OutputFile> RealFileSystem::create(const fs::path& path) {
  const int number = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
  if (number < 0) throw FileError("create", path, errno);
  return std::make_unique<RealOutputFile>(path, number);
}

void RealFileSystem::make_dir(const fs::path& path) {
  if (::mkdir(path.c_str(), 0777) != 0) throw FileError("make directory", path, errno);
}

void RealFileSystem::rename(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) throw FileError("rename to", to, errno);
}

void RealFileSystem::exchange(const fs::path& a, const fs::path& b) {
  if (::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) != 0)
    throw FileError("exchange names with", b, errno);
}

void RealFileSystem::sync_dir(const fs::path& path) {
  const Descriptor directory(open_existing("open directory", path, O_DIRECTORY));
  if (::fsync(directory) != 0) throw FileError("synchronize directory", path, errno);
}

void RealFileSystem::remove(const fs::path& path) {
  if (::remove(path.c_str()) != 0) throw FileError("remove", path, errno);
}

std::vector<std::string> RealFileSystem::list(const fs::path& path) const {
  Descriptor descriptor(open_existing("open directory", path, O_DIRECTORY));
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(::fdopendir(descriptor), ::closedir);
  if (!directory) throw FileError("list", path, errno);
  descriptor.release();
  std::vector<std::string> names;
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(directory.get());
    if (!entry && errno != 0) throw FileError("list", path, errno);
    if (!entry) break;
    std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(std::move(name));
  }
  std::sort(names.begin(), names.end());
  return names;
}

FileStatus RealFileSystem::status(const fs::path& path) const {
  struct stat found;
  if (::lstat(path.c_str(), &found) != 0) {
    if (errno == ENOENT) return {};
    throw FileError("look at", path, errno);
  }
  if (S_ISREG(found.st_mode)) return {FileKind::kFile, static_cast<std::uint64_t>(found.st_size)};
  return {S_ISDIR(found.st_mode) ? FileKind::kDirectory : FileKind::kOther, 0};
}

void RealFileSystem::read(const fs::path& path, std::uint64_t offset, std::span<std::byte> bytes) const {
  const Descriptor file(open_existing("open", path, O_NOFOLLOW));
  struct stat found;
  if (::fstat(file, &found) != 0) throw FileError("look at", path, errno);
  if (!S_ISREG(found.st_mode)) throw FileError("read", path, S_ISDIR(found.st_mode) ? EISDIR : EINVAL);
  while (!bytes.empty()) {
    const auto count = ::pread(file, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw FileError("read", path, errno);
    if (count == 0)
      fail(ExitCode::kCheckpoint, "cannot read '{}': it ends at byte {}, {} more were expected",
           path.string(), offset, bytes.size());
    bytes = bytes.subspan(static_cast<std::size_t>(count));
    note_progress();
    offset += static_cast<std::uint64_t>(count);
  }
}

}  // namespace trireme
