// A file system in memory that forgets, at a crash, what was never synchronized.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>

#include "core/base/file_system.h"

namespace trireme {

/// For tests. Paths are absolute; the root exists.
///
/// Each directory remembers every state since it was last synchronized. A crash brings it back to any one of
/// these states, independently of other directories. It leaves a file with any part of its unsynchronized
/// bytes, or with zeros in their place. This is all that a journalling file system may do, and no more.
class MemoryFileSystem : public FileSystem {
 public:
  MemoryFileSystem();
  ~MemoryFileSystem() override;

  enum class Crash {
    kForget,  ///< everything unsynchronized is lost
    kKeep,    ///< all names are kept, unsynchronized bytes are lost
    kAny,     ///< a choice per directory and file, drawn from `seed`
  };
  void crash(Crash kind, std::uint64_t seed = 0);

  /// Flips one bit of a file at rest.
  void damage(const std::filesystem::path& path, std::uint64_t offset, int bit = 0);
  /// Cuts a file at rest.
  void truncate(const std::filesystem::path& path, std::uint64_t size);
  /// Puts something at `path` that is neither file nor directory.
  void make_link(const std::filesystem::path& path);

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

 private:
  struct Node;
  class Writer;
  struct Place;
  std::shared_ptr<Node> find(const std::filesystem::path& path) const;
  Place place_of(const char* what, const std::filesystem::path& path) const;

  mutable std::mutex mutex_;
  std::shared_ptr<Node> root_;
};

}  // namespace trireme
