// The few file operations that the checkpoint store is made of, so that tests can lose and fail them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/error.h"

namespace trireme {

/// A failed file operation: Error(kCheckpoint) that also knows errno.
class FileError : public Error {
 public:
  /// "cannot <what> '<path>': <text of number>", and for a full disk what to do
  FileError(const char* what, const std::filesystem::path& path, int number);
  int number() const { return number_; }

 private:
  int number_;
};

enum class FileKind { kMissing, kFile, kDirectory, kOther };

struct FileStatus {
  FileKind kind = FileKind::kMissing;
  std::uint64_t size = 0;  ///< the size of a file in bytes
};

/// A new file being written. One thread at a time.
class OutputFile {
 public:
  virtual ~OutputFile() = default;
  virtual void append(std::span<const std::byte> bytes) = 0;
  /// Returns when the bytes are on stable storage. The name needs sync_dir of its directory.
  virtual void sync() = 0;
  /// Reports what a late write could not do. Without it the destructor closes in silence.
  virtual void close() = 0;
};

/// Every operation throws FileError when it fails. No symbolic link is followed in the last part of a path,
/// but by list and sync_dir. Thread-safe.
class FileSystem {
 public:
  virtual ~FileSystem() = default;
  /// Creates a file that did not exist.
  virtual std::unique_ptr<OutputFile> create(const std::filesystem::path& path) = 0;
  /// Makes a directory that did not exist.
  virtual void make_dir(const std::filesystem::path& path) = 0;
  /// Renames as POSIX does: an existing file is replaced.
  virtual void rename(const std::filesystem::path& from, const std::filesystem::path& to) = 0;
  /// Swaps two existing entries in one operation. Not every file system can: number() is EINVAL or ENOSYS.
  virtual void exchange(const std::filesystem::path& a, const std::filesystem::path& b) = 0;
  /// Returns when the entries of the directory are on stable storage.
  virtual void sync_dir(const std::filesystem::path& path) = 0;
  /// Removes a file or an empty directory.
  virtual void remove(const std::filesystem::path& path) = 0;

  /// Names in a directory, sorted.
  virtual std::vector<std::string> list(const std::filesystem::path& path) const = 0;
  /// kMissing where there is nothing.
  virtual FileStatus status(const std::filesystem::path& path) const = 0;
  /// Fills `bytes` from `offset` of a regular file; a file that ends earlier is an error.
  virtual void read(const std::filesystem::path& path, std::uint64_t offset,
                    std::span<std::byte> bytes) const = 0;
};

/// The machine's file system (POSIX).
class RealFileSystem : public FileSystem {
 public:
  std::unique_ptr<OutputFile> create(const std::filesystem::path& path) override;
  void make_dir(const std::filesystem::path& path) override;
  void rename(const std::filesystem::path& from, const std::filesystem::path& to) override;
  void exchange(const std::filesystem::path& a, const std::filesystem::path& b) override;
  void sync_dir(const std::filesystem::path& path) override;
  void remove(const std::filesystem::path& path) override;
  std::vector<std::string> list(const std::filesystem::path& path) const override;
  FileStatus status(const std::filesystem::path& path) const override;
  void read(const std::filesystem::path& path, std::uint64_t offset,
            std::span<std::byte> bytes) const override;
};

}  // namespace trireme
