#include "core/interchange/weights.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>

#include "core/nn/state.h"

namespace trireme {

namespace fs = std::filesystem;

namespace {

std::size_t bytes_in(const Tensor& t) { return static_cast<std::size_t>(t.numel()) * size_of(t.dtype()); }

Tensor read_tensor(const FileSystem& files, const fs::path& path, const SafetensorsEntry& entry) {
  if (entry.shape.size() > static_cast<std::size_t>(kMaxDims))
    fail(ExitCode::kCheckpoint, "'{}': '{}' has {} dimensions; at most {} can be held", path.string(),
         entry.name, entry.shape.size(), kMaxDims);
  const Tensor t = Tensor::empty(Shape(std::span(entry.shape)), entry.dtype);
  read_safetensors_entry(files, path, entry, memory_of(t));
  return t;
}

/// Returns whether a tensor is PyTorch's count of batches in a batch normalization, which does not influence
/// results unless the layer has no momentum. Our layers do not keep it.
bool is_batch_counter(const std::string& name) {
  constexpr std::string_view kName = "num_batches_tracked";
  return name == kName || name.ends_with("." + std::string(kName));
}

/// A plan tells which tensor of the file goes to which of ours, and which tensors do not fit.
class Plan {
 public:
  Plan(const std::vector<NamedTensor>& ours, const fs::path& path, const WeightMap& map)
      : path_(followed(path)) {
    for (SafetensorsEntry& entry : read_safetensors_layout(files_, path_, ForeignDTypes::kKeep).entries)
      theirs_.emplace(entry.name, std::move(entry));
    for (const NamedTensor& t : ours) add(t, map);
    // A tensor that several of our names share needs one of them.
    std::erase_if(missing_, [&](const Missing& m) {
      return std::ranges::any_of(items_, [&](const Item& item) { return is_same_memory(item.ours, m.ours); });
    });
    for (const auto& [name, entry] : theirs_)
      if (!used_.contains(name) && !map.ignores(name) && !is_batch_counter(name)) unexpected_.push_back(name);
  }

  void check() const {
    std::string text;
    const auto list = [&](const char* what, const std::vector<std::string>& items) {
      if (items.empty()) return;
      text +=
          fmt::format("{}{} {}: {}", text.empty() ? "" : "; ", items.size(), what, fmt::join(items, ", "));
    };
    std::vector<std::string> missing;
    for (const Missing& m : missing_) missing.push_back(m.text);
    list("missing", missing);
    list("unexpected", unexpected_);
    list("that do not fit", unfit_);
    if (!text.empty())
      fail(ExitCode::kCheckpoint, "weights of '{}' are not those of the model: {}; a map of names may help",
           path_.string(), text);
  }

  void run() const {
    for (const Item& item : items_) item.ours.check_writable("load_weights");
    for (const Item& item : items_) {
      copy_into(item.ours, stepped(read_tensor(files_, path_, *item.theirs), item.steps));
      item.ours.bump_version("load_weights");
    }
  }

 private:
  struct Item {
    Tensor ours;
    const SafetensorsEntry* theirs;
    std::vector<WeightStep> steps;
  };

  struct Missing {
    std::string text;
    Tensor ours;
  };

  static bool is_same_memory(const Tensor& a, const Tensor& b) {
    return a.raw() == b.raw() && a.shape() == b.shape() && a.strides() == b.strides();
  }

  void add(const NamedTensor& t, const WeightMap& map) {
    const auto source = map.source_of(t.name);
    const auto miss = [&](std::string text) { missing_.push_back({std::move(text), t.tensor}); };
    if (!source) return miss(t.name + " (no line of the map names it)");
    if (source->name == "-") return;
    const auto found = theirs_.find(source->name);
    if (found == theirs_.end())
      return miss(t.name == source->name ? t.name : fmt::format("{} (from {})", t.name, source->name));
    used_.insert(source->name);
    const SafetensorsEntry& entry = found->second;
    std::string wrong;
    if (!entry.foreign_dtype.empty())
      wrong = fmt::format("is {}, the file has {}", name_of(t.tensor.dtype()), entry.foreign_dtype);
    else if (entry.dtype != t.tensor.dtype() && !(is_floating(entry.dtype) && is_floating(t.tensor.dtype())))
      wrong = fmt::format("is {}, the file has {}", name_of(t.tensor.dtype()), name_of(entry.dtype));
    else
      wrong = wrong_shape(t.tensor, entry, source->steps);
    if (!wrong.empty()) return unfit_.push_back(fmt::format("{} {}", t.name, wrong));
    items_.push_back({t.tensor, &entry, source->steps});
  }

  static std::string wrong_shape(const Tensor& ours, const SafetensorsEntry& entry,
                                 const std::vector<WeightStep>& steps) {
    std::string has = fmt::format("is {}, the file has {}", ours.shape().to_string(), text_of(entry.shape));
    if (entry.shape.size() > static_cast<std::size_t>(kMaxDims)) return has;
    try {
      const Shape whole{std::span(entry.shape)};
      // Only its shape is looked at: one byte of memory stands for all.
      const Tensor shadow = Tensor::empty({1}, DType::kUInt8).alias(whole, contiguous_strides(whole), 0);
      const Shape left = stepped(shadow, steps).shape();
      if (left == ours.shape()) return "";
      return steps.empty() ? has : fmt::format("{}, which becomes {}", has, left.to_string());
    } catch (const Error& error) {
      return fmt::format("{}: {}", has, error.what());
    }
  }

  const RealFileSystem files_;
  const fs::path path_;
  std::map<std::string, SafetensorsEntry> theirs_;
  std::set<std::string> used_;
  std::vector<Item> items_;
  std::vector<Missing> missing_;
  std::vector<std::string> unexpected_, unfit_;
};

}  // namespace

void save_safetensors(const fs::path& path, const std::vector<NamedTensor>& tensors,
                      const SafetensorsMetadata& metadata) {
  std::vector<Tensor> dense;
  std::vector<TensorSlot> slots;
  for (const NamedTensor& t : tensors) {
    TRIREME_CHECK(t.tensor.defined() && t.tensor.device().is_cpu(),
                  "save_safetensors: {} must be a tensor in this machine's memory", t.name);
    const Tensor& rows = dense.emplace_back(t.tensor.row_major());
    slots.push_back({t.name,
                     rows.dtype(),
                     {rows.shape().begin(), rows.shape().end()},
                     memory_of(rows).data(),
                     bytes_in(rows)});
  }
  write_safetensors(path, slots, metadata);
}

LoadedTensors load_safetensors(const fs::path& path) {
  const RealFileSystem files;
  const fs::path target = followed(path);
  SafetensorsLayout layout = read_safetensors_layout(files, target);
  LoadedTensors loaded;
  for (const SafetensorsEntry& entry : layout.entries)
    loaded.tensors.push_back({entry.name, read_tensor(files, target, entry)});
  std::ranges::sort(loaded.tensors, {}, &NamedTensor::name);
  loaded.metadata = std::move(layout.metadata);
  return loaded;
}

void load_weights(const std::vector<NamedTensor>& ours, const fs::path& path, const WeightMap& map) {
  const Plan plan(ours, path, map);
  plan.check();
  plan.run();
}

void load_weights(nn::Module& module, const fs::path& path, const WeightMap& map) {
  load_weights(nn::state_dict(module), path, map);
}

}  // namespace trireme
