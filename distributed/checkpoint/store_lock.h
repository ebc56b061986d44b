// Keeps two jobs from writing checkpoints into one directory.
#pragma once

#include <filesystem>

namespace trireme {

/// Holds `DIR/.lock` for as long as it lives. The kernel drops the lock with the process, however that ends,
/// so nothing needs to be cleaned up by hand. Readers need none.
///
/// On NFS the server keeps the lock, and a host that loses power holds it until the server has noticed. If
/// NFS is mounted with nolock or local_lock, the lock keeps apart only the jobs of one host. On file systems
/// without locks it keeps no jobs apart.
class StoreLock {
 public:
  /// The directory exists. Throws Error(kUsage) naming the process and host that hold it.
  explicit StoreLock(const std::filesystem::path& directory);
  ~StoreLock();
  StoreLock(const StoreLock&) = delete;
  StoreLock& operator=(const StoreLock&) = delete;

 private:
  std::filesystem::path path_;
  int file_ = -1;
};

}  // namespace trireme
