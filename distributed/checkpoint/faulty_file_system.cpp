#include "distributed/checkpoint/faulty_file_system.h"

#include <cerrno>

namespace trireme {

namespace fs = std::filesystem;

class FaultyFileSystem::Writer : public OutputFile {
 public:
  Writer(FaultyFileSystem& owner, fs::path path, std::unique_ptr<OutputFile> base)
      : owner_(owner), path_(std::move(path)), base_(std::move(base)) {}

  void append(std::span<const std::byte> bytes) override {
    std::vector<std::byte> spoiled;
    const bool about_to_fail = owner_.count_ == owner_.index_;
    if (about_to_fail && owner_.fault_ == Fault::kShortWrite) base_->append(bytes.first(bytes.size() / 2));
    if (about_to_fail && owner_.fault_ == Fault::kFlippedBit && !bytes.empty()) {
      spoiled.assign(bytes.begin(), bytes.end());
      spoiled[spoiled.size() / 2] ^= std::byte{16};
      bytes = spoiled;
    }
    owner_.pass_on(path_, [&] { base_->append(bytes); });
  }
  void sync() override {
    owner_.pass_on(path_, [&] { base_->sync(); });
  }
  void close() override {
    owner_.pass_on(path_, [&] { base_->close(); });
  }

 private:
  FaultyFileSystem& owner_;
  fs::path path_;
  std::unique_ptr<OutputFile> base_;
};

void FaultyFileSystem::fail_at(long index, Fault fault) {
  count_ = 0;
  crashed_ = false;
  fault_ = fault;
  index_ = index;
}

void FaultyFileSystem::check_alive(const fs::path& path) const {
  if (crashed_) throw FileError("reach", path, EIO);
}

template <class Operation>
void FaultyFileSystem::pass_on(const fs::path& path, Operation operation) {
  const bool spoil = count_++ == index_;
  if (spoil && fault_ == Fault::kCrash) crashed_ = true;
  check_alive(path);
  if (!spoil || fault_ == Fault::kFlippedBit) return operation();
  if (fault_ == Fault::kIoAfter) operation();
  const bool no_space = fault_ == Fault::kNoSpace || fault_ == Fault::kShortWrite;
  throw FileError("change", path, no_space ? ENOSPC : EIO);
}

std::unique_ptr<OutputFile> FaultyFileSystem::create(const fs::path& path) {
  std::unique_ptr<OutputFile> file;
  pass_on(path, [&] { file = base_->create(path); });
  return std::make_unique<Writer>(*this, path, std::move(file));
}

void FaultyFileSystem::make_dir(const fs::path& path) {
  pass_on(path, [&] { base_->make_dir(path); });
}

void FaultyFileSystem::rename(const fs::path& from, const fs::path& to) {
  pass_on(to, [&] { base_->rename(from, to); });
}

void FaultyFileSystem::exchange(const fs::path& a, const fs::path& b) {
  pass_on(b, [&] {
    if (!exchange_allowed_) throw FileError("exchange names with", b, EINVAL);
    base_->exchange(a, b);
  });
}

void FaultyFileSystem::sync_dir(const fs::path& path) {
  pass_on(path, [&] { base_->sync_dir(path); });
}

void FaultyFileSystem::remove(const fs::path& path) {
  pass_on(path, [&] { base_->remove(path); });
}

std::vector<std::string> FaultyFileSystem::list(const fs::path& path) const {
  check_alive(path);
  return base_->list(path);
}

FileStatus FaultyFileSystem::status(const fs::path& path) const {
  check_alive(path);
  return base_->status(path);
}

void FaultyFileSystem::read(const fs::path& path, std::uint64_t offset, std::span<std::byte> bytes) const {
  check_alive(path);
  base_->read(path, offset, bytes);
}

}  // namespace trireme
