// `trireme checkpoint`: lists, verifies, inspects, compares, exports and imports checkpoints.
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <bit>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <limits>
#include <map>
#include <optional>
#include <sstream>
#include <string_view>

#include "core/interchange/safetensors.h"
#include "core/metrics/jsonl.h"
#include "distributed/checkpoint/store.h"
#include "distributed/checkpoint/store_lock.h"
#include "distributed/comm/local.h"
#include "distributed/train/help.h"
#include "launcher/commands.h"

namespace trireme {

namespace fs = std::filesystem;

namespace {

constexpr int kDifferent = 1;  // exit code of `diff` for a difference, like that of Unix diff

constexpr const char* kPrefix = "trireme.";  // prefix of Trireme's keys in a safetensors file's metadata

SafetensorsMetadata metadata_of(const JobState& job) {
  SafetensorsMetadata metadata = {{"format", "pt"}};
  for_each_field(job, [&](const char* name, const auto& value) {
    metadata[std::string(kPrefix) + name] = fmt::format("{}", value);
  });
  // Leave out the entries that depend on the machines, so that exports of equal runs have equal bytes.
  for (const char* name : {"link", "engines"}) metadata.erase(std::string(kPrefix) + name);
  return metadata;
}

void read_value(std::string& text, const char*, const std::string& found) { text = found; }

template <class Number>
void read_value(Number& number, const char* name, const std::string& found) {
  const char* last = found.data() + found.size();
  const auto [end, error] = std::from_chars(found.data(), last, number);
  if (error != std::errc() || end != last)
    fail(ExitCode::kCheckpoint, "its metadata says {}{} = '{}', which is not a number", kPrefix, name, found);
}

JobState job_of(const SafetensorsMetadata& metadata) {
  JobState job;
  for_each_field(job, [&](const char* name, auto& value) {
    const auto found = metadata.find(std::string(kPrefix) + name);
    if (found != metadata.end()) read_value(value, name, found->second);
  });
  return job;
}

CheckpointStore store_at(const fs::path& path) { return {std::make_shared<RealFileSystem>(), path}; }

fs::path existing(const std::string& text) {
  std::error_code ignored;
  if (!fs::exists(text, ignored))
    fail(ExitCode::kUsage, "'{}' does not exist: give a checkpoint directory", text);
  // Make the path absolute: the parent of a checkpoint is its store, and a relative path may have no parent.
  const fs::path path = fs::absolute(text).lexically_normal();
  return path.has_filename() ? path : path.parent_path();
}

/// Returns the checkpoints at a path: the path itself if it is a checkpoint, otherwise those of the store
/// there.
std::vector<fs::path> checkpoints_at(const std::string& text) {
  const fs::path path = existing(text);
  if (fs::exists(path / "manifest.pb")) return {path};
  std::vector<fs::path> found;
  for (const Checkpoint& checkpoint : store_at(path).list()) found.push_back(checkpoint.path);
  // Also return a checkpoint that has lost its manifest.
  if (found.empty() && path.filename().string().starts_with("step-")) return {path};
  if (found.empty()) fail(ExitCode::kCheckpoint, "'{}' holds no committed checkpoint", text);
  return found;
}

std::uint64_t bytes_in(const std::vector<TensorSlot>& tensors) {
  std::uint64_t bytes = 0;
  for (const auto& tensor : tensors) bytes += tensor.bytes;
  return bytes;
}

int list(const std::string& directory) {
  const std::vector<fs::path> found = checkpoints_at(directory);
  std::size_t damaged = 0;
  fmt::print("{:>10}  {:>14}  {:>7}  {:<16}  {}\n", "step", "bytes", "tensors", "run", "path");
  for (const fs::path& path : found) {
    const CheckpointStore store = store_at(path.parent_path());
    try {
      const JobState job = store.read_state(path);
      const auto tensors = store.tensors(path);
      fmt::print("{:>10}  {:>14}  {:>7}  {:<16}  {}\n", job.step, bytes_in(tensors), tensors.size(),
                 job.run_id, path.string());
    } catch (const Error& error) {
      fmt::print("{:>10}  {}\n", "damaged", error.what());
      ++damaged;
    }
  }
  if (damaged == found.size())
    fail(ExitCode::kCheckpoint, "'{}': none of its {} checkpoints can be read", directory, damaged);
  return 0;
}

int verify(const std::string& directory) {
  bool sound = true;
  for (const fs::path& path : checkpoints_at(directory)) {
    const CheckpointStore store = store_at(path.parent_path());
    const auto damage = store.verify(path);
    for (const std::string& line : damage) fmt::print(stderr, "trireme: {}\n", line);
    if (damage.empty())
      fmt::print("{}: sound, {} bytes of tensors\n", path.string(), bytes_in(store.tensors(path)));
    sound &= damage.empty();
  }
  return static_cast<int>(sound ? ExitCode::kDone : ExitCode::kCheckpoint);
}

/// Prints a label and the lines of `text`, indented. Prints nothing if `text` is empty.
void print_lines(const char* label, const std::string& text) {
  if (text.empty()) return;
  fmt::print("{}:\n", label);
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) fmt::print("  {}\n", line);
}

int inspect(const std::string& directory) {
  const fs::path path = checkpoints_at(directory).back();
  const CheckpointStore store = store_at(path.parent_path());
  const JobState job = store.read_state(path);
  fmt::print("{}\n", path.string());
  for_each_field(job, [](const char* name, const auto& value) {
    const std::string text = fmt::format("{}", value);
    if (std::string_view(name) == "engines") return print_lines(name, text);
    if (!text.empty()) fmt::print("{}: {}\n", name, text);
  });
  const auto tensors = store.tensors(path);
  fmt::print("tensors: {}, {} bytes\n", tensors.size(), bytes_in(tensors));
  for (const auto& tensor : tensors)
    fmt::print("  {} {}\n", tensor.name, text_of(tensor.dtype, tensor.shape));
  return 0;
}

/// Reads the tensors of a safetensors file, of a checkpoint, or of the newest checkpoint of a store, in the
/// order of their names.
OwnedTensors tensors_at(const std::string& text) {
  if (fs::is_regular_file(text)) return read_safetensors(text);
  const fs::path path = checkpoints_at(text).back();
  const CheckpointStore store = store_at(path.parent_path());
  OwnedTensors owned = allocate_like(store.tensors(path));
  owned.metadata = metadata_of(store.load(path, owned.tensors));
  return owned;
}

/// Returns an element's value as text. For floats it adds the bits, which tell 0 from -0 and one NaN from
/// another.
std::string element_text(const TensorSlot& tensor, std::size_t index) {
  return visit_dtype(tensor.dtype, [&]<class T>(T value) {
    std::memcpy(&value, tensor.data + index * sizeof value, sizeof value);
    if constexpr (std::is_same_v<T, float>)
      return fmt::format("{} ({:#010x})", value, std::bit_cast<std::uint32_t>(value));
    else if constexpr (std::is_same_v<T, double>)
      return fmt::format("{} ({:#018x})", value, std::bit_cast<std::uint64_t>(value));
    else
      return fmt::format("{}", value);
  });
}

std::vector<std::int64_t> coordinates(std::vector<std::int64_t> shape, std::int64_t index) {
  for (auto dimension = shape.rbegin(); dimension != shape.rend(); ++dimension) {
    const std::int64_t size = *dimension;
    *dimension = index % size;
    index /= size;
  }
  return shape;
}

/// Returns a description of where two tensors of the same name differ, or nothing if they are equal.
std::optional<std::string> difference(const TensorSlot& a, const TensorSlot& b) {
  if (a.dtype != b.dtype || a.shape != b.shape)
    return fmt::format("tensor '{}' is {} in the first, {} in the second", a.name, text_of(a.dtype, a.shape),
                       text_of(b.dtype, b.shape));
  if (a.bytes == 0 || std::memcmp(a.data, b.data, a.bytes) == 0) return std::nullopt;
  const std::size_t element = size_of(a.dtype), count = a.bytes / element;
  std::size_t first = count, different = 0;
  for (std::size_t i = count; i-- > 0;)
    if (std::memcmp(a.data + i * element, b.data + i * element, element) != 0) {
      first = i;
      ++different;
    }
  return fmt::format(
      "tensor '{}' {}: element {} {} is {} in the first, {} in the second; {} of {} elements differ", a.name,
      text_of(a.dtype, a.shape), first, text_of(coordinates(a.shape, static_cast<std::int64_t>(first))),
      element_text(a, first), element_text(b, first), different, count);
}

/// Returns the lines of the digest trail at a path, by step, or nothing if the file is not a digest trail.
std::optional<std::map<std::int64_t, Record>> trail_at(const std::string& text) {
  if (!fs::is_regular_file(text) || std::ifstream(text).peek() != '{') return std::nullopt;
  std::map<std::int64_t, Record> trail;
  read_metrics(text, [&](const Record& record) { trail[record.step().value_or(0)] = record; });
  return trail;
}

/// Prints the first step after which two digest trails differ, and the tensors that differ. Returns the exit
/// code.
int diff_trails(const std::map<std::int64_t, Record>& a, const std::map<std::int64_t, Record>& b) {
  std::size_t common = 0;
  for (const auto& [step, first] : a) {
    const auto found = b.find(step);
    if (found == b.end()) continue;
    ++common;
    if (first.fields() == found->second.fields()) continue;
    std::vector<std::string> names;
    for (const auto* one : {&first, &found->second})
      for (const auto& [name, digest] : one->fields()) {
        const auto *const here = first.find(name), *const there = found->second.find(name);
        const bool known = std::ranges::find(names, name) != names.end();
        if (name != "digest" && !known && (!here || !there || *here != *there)) names.push_back(name);
      }
    if (names.empty()) names.emplace_back("no tensor that both name");
    constexpr std::size_t kShown = 5;
    const std::string more =
        names.size() > kShown ? fmt::format(" and {} more", names.size() - kShown) : std::string();
    names.resize(std::min(names.size(), kShown));
    fmt::print("step {} is the first that differs, in {}{}\n", step, fmt::join(names, ", "), more);
    return kDifferent;
  }
  if (common == 0) fail(ExitCode::kUsage, "the two trails have no step in common: nothing to compare");
  const std::size_t more_in_a = a.size() - common, more_in_b = b.size() - common;
  fmt::print("the same: {} step{}{}{}\n", common, common == 1 ? "" : "s",
             more_in_a > 0 ? fmt::format("; {} more only in the first", more_in_a) : "",
             more_in_b > 0 ? fmt::format("; {} more only in the second", more_in_b) : "");
  return 0;
}

int diff(const std::string& first, const std::string& second) {
  for (const std::string& path : {first, second})
    if (!fs::exists(path)) fail(ExitCode::kUsage, "'{}' does not exist: nothing to compare", path);
  const auto trail = trail_at(first), other = trail_at(second);
  if (trail && other) return diff_trails(*trail, *other);
  if (trail || other)
    fail(ExitCode::kUsage, "'{}' is a digest trail, '{}' is none: give two of a kind", trail ? first : second,
         trail ? second : first);
  const OwnedTensors a = tensors_at(first), b = tensors_at(second);
  for (std::size_t i = 0; i < a.tensors.size() || i < b.tensors.size(); ++i) {
    std::optional<std::string> found;
    if (i == b.tensors.size() || (i < a.tensors.size() && a.tensors[i].name < b.tensors[i].name))
      found = fmt::format("tensor '{}' is only in the first", a.tensors[i].name);
    else if (i == a.tensors.size() || b.tensors[i].name < a.tensors[i].name)
      found = fmt::format("tensor '{}' is only in the second", b.tensors[i].name);
    else
      found = difference(a.tensors[i], b.tensors[i]);
    if (!found) continue;
    fmt::print("{}\n", *found);
    return kDifferent;
  }
  fmt::print("the same: {} tensors, {} bytes\n", a.tensors.size(), bytes_in(a.tensors));
  return 0;
}

int export_to(const std::string& directory, const std::string& file) {
  const OwnedTensors owned = tensors_at(directory);
  try {
    write_safetensors(file, owned.tensors, owned.metadata);
  } catch (const FileError& error) {
    fail(ExitCode::kUsage, "{}: choose another file to export to", error.what());
  }
  fmt::print("{}: {} tensors, {} bytes\n", file, owned.tensors.size(), bytes_in(owned.tensors));
  return 0;
}

int import_from(const std::string& directory, const std::string& file, std::optional<std::int64_t> step) {
  if (!fs::exists(file)) fail(ExitCode::kUsage, "'{}' does not exist: give a safetensors file", file);
  const OwnedTensors owned = read_safetensors(file);
  JobState job = job_of(owned.metadata);
  if (step) job.step = *step;
  CheckpointStore store = store_at(directory);
  store.check_writable();
  const StoreLock lock(directory);
  for (const Checkpoint& found : store.list())
    if (found.step == job.step)
      fail(ExitCode::kUsage, "'{}' exists: choose another --step or another directory", found.path.string());
  run_local_ranks(1, std::chrono::hours(1), [&](Communicator& comm) {
    store.save(comm, job, owned.tensors, std::numeric_limits<int>::max());
  });
  fmt::print("step {} in '{}': {} tensors, {} bytes\n", job.step, directory, owned.tensors.size(),
             bytes_in(owned.tensors));
  return 0;
}

}  // namespace

int checkpoint_main(int argc, char** argv) {
  CLI::App app("Look at checkpoints, check them, and turn them into plain safetensors files and back.",
               "trireme checkpoint");
  app.require_subcommand(1);
  std::string directory, second;
  std::optional<std::int64_t> step;
  int result = 0;
  app.set_help_flag("-h,--help", "Show this text and end");
  const auto add = [&](const char* name, const char* what, const std::function<int()>& run) {
    CLI::App* command = app.add_subcommand(name, what);
    command->add_option("dir", directory, "A store (its newest step counts) or one step-NNNNNNNN in it")
        ->type_name("")
        ->required();
    command->callback([&result, run] { result = run(); });
    return command;
  };
  const auto add_path = [&](CLI::App* command, const char* name, const char* what) {
    command->add_option(name, second, what)->type_name("")->required();
  };
  add("list", "Print the committed checkpoints", [&] { return list(directory); });
  add("verify", "Check every byte; exit 4 if any is damaged", [&] { return verify(directory); });
  add("inspect", "Print the state of the job and the tensors", [&] { return inspect(directory); });
  add_path(add("diff",
               "Name the first differing tensor and element, or of two files of --digest-trail the first "
               "differing step and its tensors; exit 1 if there is one",
               [&] { return diff(directory, second); }),
           "other", "The other checkpoint, or a plain file");
  add_path(add("export", "Write one plain safetensors file", [&] { return export_to(directory, second); }),
           "file", "The file to write");
  CLI::App* import = add("import", "Make a checkpoint of one plain safetensors file",
                         [&] { return import_from(directory, second, step); });
  add_path(import, "file", "The file to read");
  import->add_option("--step", step, "Finished steps (default: what the file says, else 0)")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    fmt::print("{}", help_text(app));
  } catch (const CLI::ParseError& error) {
    fail(ExitCode::kUsage, "checkpoint: {}: 'trireme checkpoint --help' tells more", error.what());
  }
  return result;
}

}  // namespace trireme
