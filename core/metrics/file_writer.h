// A file being written with plain system calls: no hidden buffer, every failure an Error.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

namespace trireme {

/// Owns one open file descriptor. One thread at a time. Failures are Error(kUsage) naming the path
/// and the system's reason.
class FileWriter {
 public:
  enum class Mode {
    kNew,     ///< fails when the file is there
    kAppend,  ///< keeps what is there; every write goes to the end
    kDraft,   ///< starts empty, and is removed at the end unless it was renamed
  };

  /// Makes missing parent folders first. A named pipe that no process reads is an error, not a wait.
  FileWriter(std::filesystem::path path, Mode mode);
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  const std::filesystem::path& path() const { return path_; }
  int descriptor() const { return fd_; }

  /// Returns the bytes in a regular file; 0 for a pipe, a terminal and the like.
  std::int64_t size() const;
  /// Reserves a regular file for this writer until it is destroyed. Fails where another process or writer has
  /// reserved it; does nothing on a file system without locks.
  void lock();
  /// Hands everything to one write(2), and the rest to further ones should the system take less. When it
  /// fails half-way, a regular file is cut back to where it was, so that no reader meets half a line.
  void write(std::string_view bytes);
  /// Makes the file `size` bytes long.
  void truncate(std::int64_t size);
  /// Flushes to the disk.
  void sync();
  /// Gives the file its final name, in place of what has that name: readers see the old or the whole new one.
  void rename(const std::filesystem::path& to);

 private:
  std::filesystem::path path_;
  int fd_ = -1;
  bool draft_;
};

}  // namespace trireme
