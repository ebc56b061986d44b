#include "core/nn/module.h"

#include <functional>
#include <unordered_set>

namespace trireme::nn {

namespace {

enum class Kind { kParameter, kBuffer };

/// Gathers named tensors of one kind below a module.
class Collector final : public Visitor {
 public:
  explicit Collector(Kind kind) : kind_(kind) {}
  void parameter(const std::string& name, Tensor& t) override { take(Kind::kParameter, name, t); }
  void buffer(const std::string& name, Tensor& t) override { take(Kind::kBuffer, name, t); }
  void module(const std::string& name, Module& m) override {
    const std::string before = prefix_;
    prefix_ += name + ".";
    m.visit(*this);
    prefix_ = before;
  }
  std::vector<NamedTensor> found;

 private:
  void take(Kind kind, const std::string& name, const Tensor& t) {
    if (kind == kind_ && t.defined() && seen_.insert(t.impl()).second) found.push_back({prefix_ + name, t});
  }
  Kind kind_;
  std::string prefix_;
  std::unordered_set<TensorImpl*> seen_;
};

/// Calls fn(path, module) for the children of a module.
class Children final : public Visitor {
 public:
  explicit Children(std::function<void(const std::string&, Module&)> fn) : fn_(std::move(fn)) {}
  void parameter(const std::string&, Tensor&) override {}
  void buffer(const std::string&, Tensor&) override {}
  void module(const std::string& name, Module& m) override { fn_(name, m); }

 private:
  std::function<void(const std::string&, Module&)> fn_;
};

void set_paths(Module& module, const std::string& path) {
  module.set_path(path);
  Children children([&](const std::string& name, Module& child) {
    set_paths(child, path.empty() ? name : path + "." + name);
  });
  module.visit(children);
}

struct InitialValues {
  std::uint64_t seed = 0;
  std::uint64_t count = 0;
};
thread_local InitialValues initial_values;

}  // namespace

Tensor Module::forward(const Tensor&) {
  fail(ExitCode::kInternal, "module: forward(x) is not defined for this module; call its own forward");
}
void Module::visit(Visitor&) {}
void Module::set_path(const std::string&) {}

std::vector<NamedTensor> Module::parameters() {
  Collector collector(Kind::kParameter);
  visit(collector);
  return std::move(collector.found);
}

std::vector<NamedTensor> Module::buffers() {
  Collector collector(Kind::kBuffer);
  visit(collector);
  return std::move(collector.found);
}

void Module::train(bool on) {
  training_ = on;
  Children children([on](const std::string&, Module& child) { child.train(on); });
  visit(children);
}

Tensor Sequential::forward(const Tensor& x) {
  Tensor y = x;
  for (const auto& module : modules_) y = module->forward(y);
  return y;
}

void Sequential::visit(Visitor& visitor) {
  for (std::size_t i = 0; i < modules_.size(); ++i) visitor.module(std::to_string(i), *modules_[i]);
}

void name_modules(Module& root) { set_paths(root, ""); }

void manual_seed(std::uint64_t seed) { initial_values = {seed, 0}; }

RandomKey next_initial_key() {
  constexpr std::uint64_t kPurpose = 0x696e6974;  // "init"
  return random_key(initial_values.seed, kPurpose, initial_values.count++);
}

RandomContext& random_context() {
  thread_local RandomContext context;
  return context;
}

StatisticsSink*& statistics_sink() {
  thread_local StatisticsSink* sink = nullptr;
  return sink;
}

}  // namespace trireme::nn
