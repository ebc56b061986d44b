#include "distributed/train/output_files.h"

#include <algorithm>
#include <cstdint>
#include <system_error>

#include "kernels/error.h"

namespace trireme {

namespace fs = std::filesystem;

namespace {

/// Returns the size of a regular file in bytes, and 0 if the path is anything else.
std::uintmax_t bytes_in(const fs::path& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) return 0;
  const std::uintmax_t size = fs::file_size(path, error);
  return error ? 0 : size;
}

/// Returns true if both paths lead to one file or folder. Returns false for devices such as /dev/null, which
/// several outputs may share.
bool is_same_place(const fs::path& a, const fs::path& b) {
  std::error_code error;
  if (fs::is_character_file(a, error)) return false;
  if (fs::equivalent(a, b, error) && !error) return true;
  const fs::path one = fs::weakly_canonical(fs::absolute(a), error),
                 other = fs::weakly_canonical(fs::absolute(b), error);
  return !one.empty() && (one / "").lexically_normal() == (other / "").lexically_normal();
}

}  // namespace

void check_apart(const std::vector<Output>& outputs) {
  for (auto b = outputs.begin(); b != outputs.end(); ++b)
    for (auto a = outputs.begin(); a != b; ++a)
      if (!(a->is_folder && b->is_folder) && !a->path.empty() && !b->path.empty() &&
          is_same_place(a->path, b->path))
        fail(ExitCode::kUsage, "{} {}: {} writes there, too ({}); choose another name for one of them",
             b->flag, b->path.string(), a->flag, a->path.string());
}

void check_unwritten(const Output& output) {
  if (const std::uintmax_t size = bytes_in(output.path); size > 0)
    fail(ExitCode::kUsage,
         "{}: {} is not empty ({} bytes), and only a resumed run may replace it: choose another name, or "
         "remove the file first",
         output.flag, output.path.string(), size);
}

void set_aside(const fs::path& file, const std::function<void(const std::string&)>& say) {
  if (bytes_in(file) == 0) return;
  std::error_code error;
  fs::path name;
  for (int attempt = 1; name.empty() || fs::exists(name, error); ++attempt)
    name = file.string() + fmt::format(".attempt-{}", attempt);
  fs::rename(file, name, error);
  if (!error)
    say(fmt::format("renamed {} to {}: an attempt before the restart wrote it", file.string(),
                    name.string()));
}

std::vector<fs::path> traces_in(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.starts_with("trace-rank-") && name.ends_with(".json")) found.push_back(entry->path());
  }
  std::ranges::sort(found);
  return found;
}

}  // namespace trireme
