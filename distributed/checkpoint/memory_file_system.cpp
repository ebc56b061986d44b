#include "distributed/checkpoint/memory_file_system.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <random>

namespace trireme {

namespace fs = std::filesystem;

struct MemoryFileSystem::Node {
  using Names = std::map<std::string, std::shared_ptr<Node>>;

  FileKind kind = FileKind::kFile;
  std::vector<std::byte> bytes;       // of a file
  std::size_t synchronized = 0;       // bytes of it that a crash leaves alone
  std::vector<Names> history = {{}};  // of a directory: from the synchronized state to the one seen now

  const Names& names() const { return history.back(); }
  Names& change() { return history.emplace_back(history.back()); }
};

/// A name in an existing directory.
struct MemoryFileSystem::Place {
  std::shared_ptr<Node> directory;
  std::string name;
  bool taken() const { return directory->names().contains(name); }
};

class MemoryFileSystem::Writer : public OutputFile {
 public:
  Writer(std::mutex& mutex, std::shared_ptr<Node> node) : mutex_(mutex), node_(std::move(node)) {}
  void append(std::span<const std::byte> bytes) override {
    const std::lock_guard lock(mutex_);
    node_->bytes.insert(node_->bytes.end(), bytes.begin(), bytes.end());
  }
  void sync() override {
    const std::lock_guard lock(mutex_);
    node_->synchronized = node_->bytes.size();
  }
  void close() override {}

 private:
  std::mutex& mutex_;
  std::shared_ptr<Node> node_;
};

MemoryFileSystem::MemoryFileSystem() : root_(std::make_shared<Node>()) { root_->kind = FileKind::kDirectory; }
MemoryFileSystem::~MemoryFileSystem() = default;

std::shared_ptr<MemoryFileSystem::Node> MemoryFileSystem::find(const fs::path& path) const {
  auto node = root_;
  for (const fs::path& part : path.lexically_normal().relative_path()) {
    if (part.empty()) continue;
    if (node->kind != FileKind::kDirectory) throw FileError("look at", path, ENOTDIR);
    const auto found = node->names().find(part.string());
    if (found == node->names().end()) return nullptr;
    node = found->second;
  }
  return node;
}

MemoryFileSystem::Place MemoryFileSystem::place_of(const char* what, const fs::path& path) const {
  auto directory = find(path.parent_path());
  if (!directory) throw FileError(what, path, ENOENT);
  if (directory->kind != FileKind::kDirectory) throw FileError(what, path, ENOTDIR);
  return {std::move(directory), path.filename().string()};
}

void MemoryFileSystem::crash(Crash kind, std::uint64_t seed) {
  const std::lock_guard lock(mutex_);
  std::mt19937_64 random(seed);
  const auto up_to = [&](std::size_t last) { return static_cast<std::size_t>(random() % (last + 1)); };
  std::vector<std::shared_ptr<Node>> open = {root_};
  while (!open.empty()) {
    const auto node = open.back();
    open.pop_back();
    if (node->kind == FileKind::kDirectory) {
      const std::size_t last = node->history.size() - 1;
      const std::size_t kept = kind == Crash::kForget ? 0 : kind == Crash::kKeep ? last : up_to(last);
      node->history = {node->history[kept]};
      for (const auto& [name, child] : node->names()) open.push_back(child);
    } else if (kind == Crash::kAny && random() % 2) {
      std::fill(node->bytes.begin() + static_cast<std::ptrdiff_t>(node->synchronized), node->bytes.end(),
                std::byte{0});
    } else {
      const std::size_t loose = node->bytes.size() - node->synchronized;
      node->bytes.resize(node->synchronized + (kind == Crash::kAny ? up_to(loose) : 0));
    }
    node->synchronized = node->bytes.size();
  }
}

void MemoryFileSystem::damage(const fs::path& path, std::uint64_t offset, int bit) {
  const std::lock_guard lock(mutex_);
  find(path)->bytes.at(offset) ^= std::byte{1} << bit;
}

void MemoryFileSystem::truncate(const fs::path& path, std::uint64_t size) {
  const std::lock_guard lock(mutex_);
  find(path)->bytes.resize(size);
}

void MemoryFileSystem::make_link(const fs::path& path) {
  const std::lock_guard lock(mutex_);
  auto node = std::make_shared<Node>();
  node->kind = FileKind::kOther;
  const Place place = place_of("link", path);
  place.directory->change()[place.name] = std::move(node);
}

std::unique_ptr<OutputFile> MemoryFileSystem::create(const fs::path& path) {
  const std::lock_guard lock(mutex_);
  const Place place = place_of("create", path);
  if (place.taken()) throw FileError("create", path, EEXIST);
  auto node = std::make_shared<Node>();
  place.directory->change()[place.name] = node;
  return std::make_unique<Writer>(mutex_, std::move(node));
}

void MemoryFileSystem::make_dir(const fs::path& path) {
  const std::lock_guard lock(mutex_);
  const Place place = place_of("make directory", path);
  if (place.taken()) throw FileError("make directory", path, EEXIST);
  auto node = std::make_shared<Node>();
  node->kind = FileKind::kDirectory;
  place.directory->change()[place.name] = std::move(node);
}

void MemoryFileSystem::rename(const fs::path& from, const fs::path& to) {
  const std::lock_guard lock(mutex_);
  const Place source = place_of("rename", from), target = place_of("rename to", to);
  if (!source.taken()) throw FileError("rename", from, ENOENT);
  // One change of one directory stays one step of its history; the store renames in no other way.
  if (source.directory != target.directory) throw FileError("rename to", to, EXDEV);
  const auto node = source.directory->names().at(source.name);
  if (target.taken()) {
    const auto old = target.directory->names().at(target.name);
    if (node->kind != old->kind) throw FileError("rename to", to, ENOTDIR);
    if (old->kind == FileKind::kDirectory && !old->names().empty())
      throw FileError("rename to", to, ENOTEMPTY);
  }
  auto& names = source.directory->change();
  names.erase(source.name);
  names[target.name] = node;
}

void MemoryFileSystem::exchange(const fs::path& a, const fs::path& b) {
  const std::lock_guard lock(mutex_);
  const Place left = place_of("exchange", a), right = place_of("exchange", b);
  if (!left.taken() || !right.taken()) throw FileError("exchange names with", b, ENOENT);
  if (left.directory != right.directory) throw FileError("exchange names with", b, EXDEV);
  auto& names = left.directory->change();
  std::swap(names.at(left.name), names.at(right.name));
}

void MemoryFileSystem::sync_dir(const fs::path& path) {
  const std::lock_guard lock(mutex_);
  const auto node = find(path);
  if (!node || node->kind != FileKind::kDirectory) throw FileError("synchronize directory", path, ENOENT);
  node->history = {node->names()};
}

void MemoryFileSystem::remove(const fs::path& path) {
  const std::lock_guard lock(mutex_);
  const Place place = place_of("remove", path);
  if (!place.taken()) throw FileError("remove", path, ENOENT);
  if (!place.directory->names().at(place.name)->names().empty()) throw FileError("remove", path, ENOTEMPTY);
  place.directory->change().erase(place.name);
}

std::vector<std::string> MemoryFileSystem::list(const fs::path& path) const {
  const std::lock_guard lock(mutex_);
  const auto node = find(path);
  if (!node) throw FileError("list", path, ENOENT);
  if (node->kind != FileKind::kDirectory) throw FileError("list", path, ENOTDIR);
  std::vector<std::string> names;
  for (const auto& [name, child] : node->names()) names.push_back(name);
  return names;
}

FileStatus MemoryFileSystem::status(const fs::path& path) const {
  const std::lock_guard lock(mutex_);
  const auto node = find(path);
  if (!node) return {};
  return {node->kind, node->bytes.size()};
}

void MemoryFileSystem::read(const fs::path& path, std::uint64_t offset, std::span<std::byte> bytes) const {
  const std::lock_guard lock(mutex_);
  const auto node = find(path);
  if (!node) throw FileError("open", path, ENOENT);
  if (node->kind != FileKind::kFile)
    throw FileError("read", path, node->kind == FileKind::kOther ? ELOOP : EISDIR);
  if (offset > node->bytes.size() || bytes.size() > node->bytes.size() - offset)
    fail(ExitCode::kCheckpoint, "cannot read '{}': it ends at byte {}, {} bytes at {} were expected",
         path.string(), node->bytes.size(), bytes.size(), offset);
  if (!bytes.empty()) std::memcpy(bytes.data(), node->bytes.data() + offset, bytes.size());
}

}  // namespace trireme
