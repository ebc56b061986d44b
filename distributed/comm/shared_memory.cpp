#include "distributed/comm/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <map>
#include <mutex>
#include <new>
#include <utility>

namespace trireme {

namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kGivenBack = std::size_t{1} << 20;  // to the system: pieces from this size on
constexpr std::size_t kBoardBytes = (sizeof(Board) + kPage - 1) / kPage * kPage;

/// A file in memory, seen whole. No memory is behind it before it is used.
class Segment {
 public:
  /// Takes over `fd`; is not there if it cannot be mapped.
  Segment(int fd, std::size_t bytes) : fd_(fd), bytes_(bytes) {
    void* const seen =
        fd < 0 ? MAP_FAILED : mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (seen == MAP_FAILED) return;
    data_ = static_cast<std::byte*>(seen);
    // Copies of it in every rank's core file would fill a disk.
    madvise(data_, bytes, MADV_DONTDUMP);
    madvise(data_, bytes, MADV_HUGEPAGE);  // where the system lets such files have them
  }
  ~Segment() {
    if (data_) munmap(data_, bytes_);
    if (fd_ >= 0) close(fd_);
  }
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;

  std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  int fd() const { return fd_; }

 private:
  int fd_;
  std::size_t bytes_;
  std::byte* data_ = nullptr;
};

/// Room for one of `ranks`: more than it will use, and little enough for all of them to map all of it. 0
/// where mappings or files are limited: there reservations would take from what the job needs.
std::size_t room_for_one(std::size_t ranks) {
  rlimit space{}, file{};
  getrlimit(RLIMIT_AS, &space);
  getrlimit(RLIMIT_FSIZE, &file);
  if (space.rlim_cur != RLIM_INFINITY || file.rlim_cur != RLIM_INFINITY) return 0;
  struct sysinfo info {};
  sysinfo(&info);
  const std::size_t all = info.totalram * info.mem_unit;
  return std::max(std::min(all, 2 * all / ranks) / kPage * kPage, kBoardBytes);
}

/// Puts memory behind a part of a file. Now, since a process that writes where nothing is left is ended
/// without a word.
bool commit(int fd, std::size_t at, std::size_t bytes) {
  int result = EINTR;
  while (result == EINTR) result = posix_fallocate(fd, static_cast<off_t>(at), static_cast<off_t>(bytes));
  return result == 0;
}

/// Pieces of a range, first fit.
class FreeList {
 public:
  FreeList(std::size_t begin, std::size_t end) { free_[begin] = end; }
  std::optional<std::size_t> take(std::size_t bytes) {
    const auto fits = std::ranges::find_if(free_, [&](const auto& f) { return f.second - f.first >= bytes; });
    if (fits == free_.end()) return {};
    const auto [begin, end] = *fits;
    free_.erase(fits);
    if (end - begin > bytes) free_[begin + bytes] = end;
    return begin;
  }
  void give_back(std::size_t begin, std::size_t bytes) {
    std::size_t end = begin + bytes;
    auto next = free_.lower_bound(begin);
    if (next != free_.end() && next->first == end) {
      end = next->second;
      next = free_.erase(next);
    }
    if (next != free_.begin() && std::prev(next)->second == begin)
      std::prev(next)->second = end;
    else
      free_[begin] = end;
  }

 private:
  std::map<std::size_t, std::size_t> free_;  // begin and end, never touching
};

class SharedMemory final : public VisibleMemory, public std::enable_shared_from_this<SharedMemory> {
 public:
  SharedMemory(std::vector<std::unique_ptr<Segment>> segments, std::size_t self)
      : segments_(std::move(segments)), own_(*segments_[self]), free_(kBoardBytes, own_.bytes()) {}

  std::shared_ptr<std::byte> allocate(std::size_t bytes) override {
    const std::size_t size = std::max<std::size_t>(bytes + kPage - 1, kPage) / kPage * kPage;
    std::size_t at = 0;
    {
      const std::lock_guard lock(mutex_);
      const auto found = free_.take(size);
      if (!found) return nullptr;
      at = *found;
      if (!commit(own_.fd(), at, size)) {
        free_.give_back(at, size);
        return nullptr;
      }
    }
    return {own_.data() + at, [self = shared_from_this(), at, size](std::byte*) {
              if (self->keeps_all()) return;
              const std::lock_guard lock(self->mutex_);
              if (size >= kGivenBack)
                fallocate(self->own_.fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(at),
                          static_cast<off_t>(size));
              self->free_.give_back(at, size);
            }};
  }

  std::optional<std::uint64_t> name_of(const void* memory) const override {
    const auto at = static_cast<std::uint64_t>(static_cast<const std::byte*>(memory) - own_.data());
    if (at >= own_.bytes()) return {};
    return at;
  }
  std::byte* find(std::size_t member, std::uint64_t name) const override {
    return segments_[member]->data() + name;
  }

  Board* board(std::size_t member) const { return reinterpret_cast<Board*>(segments_[member]->data()); }

 private:
  std::vector<std::unique_ptr<Segment>> segments_;
  const Segment& own_;
  std::mutex mutex_;
  FreeList free_;  // guarded by mutex_
};

std::unique_ptr<Segment> make_segment(std::size_t bytes) {
  auto none = std::make_unique<Segment>(-1, 0);
  if (bytes == 0) return none;
  const int fd = memfd_create("trireme", MFD_CLOEXEC);
  if (fd >= 0 && ftruncate(fd, static_cast<off_t>(bytes)) != 0) {
    close(fd);
    return none;
  }
  auto made = std::make_unique<Segment>(fd, bytes);
  if (!made->data() || !commit(fd, 0, kBoardBytes)) return none;
  new (made->data()) Board{};
  return made;
}

/// That of which another process has said: its id, the file and which one it is.
std::unique_ptr<Segment> open_segment(const std::string& said) {
  long process = 0;
  int file = -1;
  unsigned long long inode = 0, bytes = 0;
  if (std::sscanf(said.c_str(), "%ld %d %llu %llu", &process, &file, &inode, &bytes) != 4 || file < 0)
    return std::make_unique<Segment>(-1, 0);
  const int fd = open(fmt::format("/proc/{}/fd/{}", process, file).c_str(), O_RDWR | O_CLOEXEC);
  struct stat found {};
  if (fd >= 0 && (fstat(fd, &found) != 0 || found.st_ino != inode)) {
    close(fd);
    return std::make_unique<Segment>(-1, 0);
  }
  return std::make_unique<Segment>(fd, bytes);
}

std::string describe(const Segment& segment) {
  struct stat found {};
  if (!segment.data() || fstat(segment.fd(), &found) != 0) return "none";
  return fmt::format("{} {} {} {}", getpid(), segment.fd(), found.st_ino, segment.bytes());
}

}  // namespace

std::unique_ptr<HostGroup> make_process_group(const std::vector<int>& ranks, int rank,
                                              const TellAll& tell_all) {
  const auto self = static_cast<std::size_t>(std::ranges::find(ranks, rank) - ranks.begin());
  std::vector<std::unique_ptr<Segment>> segments(ranks.size());
  segments[self] = make_segment(room_for_one(ranks.size()));
  const std::vector<std::string> said = tell_all(describe(*segments[self]));
  for (std::size_t i = 0; i < ranks.size(); ++i)
    if (i != self) segments[i] = open_segment(said[i]);
  const bool sees_all = std::ranges::all_of(segments, [](const auto& s) { return s->data() != nullptr; });
  // Also keeps each file open until all have opened it.
  const std::vector<std::string> agreed = tell_all(sees_all ? "sees all" : "does not");
  if (!std::ranges::all_of(agreed, [](const std::string& s) { return s == "sees all"; })) return nullptr;
  auto memory = std::make_shared<SharedMemory>(std::move(segments), self);
  std::vector<HostGroup::Member> members;
  for (std::size_t i = 0; i < ranks.size(); ++i) members.push_back({ranks[i], memory->board(i)});
  return std::make_unique<HostGroup>(std::move(members), rank, std::move(memory));
}

}  // namespace trireme
