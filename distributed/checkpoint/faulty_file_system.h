// A file system that fails on purpose.
#pragma once

#include <atomic>
#include <limits>
#include <memory>

#include "core/base/file_system.h"

namespace trireme {

/// For tests. Passes every operation on to another file system and spoils one of those that change something.
class FaultyFileSystem : public FileSystem {
 public:
  enum class Fault {
    kNoSpace,     ///< ENOSPC; nothing happens
    kIo,          ///< EIO; nothing happens
    kIoAfter,     ///< the operation takes place, EIO is reported
    kShortWrite,  ///< an append writes half its bytes, then ENOSPC; other operations: as kNoSpace
    kFlippedBit,  ///< an append changes a bit in silence; other operations succeed
    kCrash,       ///< this operation and all later ones, reading too, fail and do nothing
  };

  explicit FaultyFileSystem(std::shared_ptr<FileSystem> base) : base_(std::move(base)) {}

  /// Spoils the `index`-th operation from here on, counted from 0.
  void fail_at(long index, Fault fault);
  /// Operations that change something, since the last fail_at.
  long operations() const { return count_; }
  /// exchange() reports EINVAL, as on file systems that cannot.
  void forbid_exchange() { exchange_allowed_ = false; }

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
  class Writer;
  template <class Operation>
  void pass_on(const std::filesystem::path& path, Operation operation);
  void check_alive(const std::filesystem::path& path) const;

  std::shared_ptr<FileSystem> base_;
  std::atomic<long> count_ = 0;
  std::atomic<long> index_ = std::numeric_limits<long>::max();
  std::atomic<Fault> fault_ = Fault::kIo;
  std::atomic<bool> crashed_ = false;
  std::atomic<bool> exchange_allowed_ = true;
};

}  // namespace trireme
