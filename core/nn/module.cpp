#include "core/nn/module.h"

#include <functional>
#include <unordered_set>

namespace trireme::nn {

namespace {

enum class Kind { kParameter, kBuffer, kStatistics };

/// Gathers named tensors of one kind below a module.
class Collector final : public Visitor {
 public:
  explicit Collector(Kind kind) : kind_(kind) {}
  void parameter(const std::string& name, Tensor& t) override { take(Kind::kParameter, name, t); }
  void buffer(const std::string& name, Tensor& t) override { take(Kind::kBuffer, name, t); }
  void statistics(const std::string& name, Tensor& t) override {
    take(kind_ == Kind::kBuffer ? Kind::kBuffer : Kind::kStatistics, name, t);
  }
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

std::vector<NamedTensor> collect(Module& module, Kind kind) {
  Collector collector(kind);
  module.visit(collector);
  return std::move(collector.found);
}

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

struct InitialValues {
  std::uint64_t seed = 0;
  std::uint64_t count = 0;
};
thread_local InitialValues initial_values;

struct RandomState {
  RandomContext context;
  std::uint64_t layers = 0;
  std::uint64_t shards = 0;
};
thread_local RandomState random_state;

}  // namespace

Tensor Module::forward(const Tensor&) {
  fail(ExitCode::kInternal, "module: forward(x) is not defined for this module; call its own forward");
}
void Module::visit(Visitor&) {}
void Module::set_path(const std::string&) {}

std::vector<NamedTensor> Module::parameters() { return collect(*this, Kind::kParameter); }
std::vector<NamedTensor> Module::buffers() { return collect(*this, Kind::kBuffer); }
std::vector<NamedTensor> Module::statistics() { return collect(*this, Kind::kStatistics); }

void Module::train(bool on) {
  training_ = on;
  Children children([on](const std::string&, Module& child) { child.train(on); });
  visit(children);
}

Tensor Sequential::forward(const Tensor& x) {
  Tensor y = x;
  for (const auto& module : modules_) y = (*module)(y);
  return y;
}

void Sequential::visit(Visitor& visitor) {
  for (std::size_t i = 0; i < modules_.size(); ++i) visitor.module(std::to_string(i), *modules_[i]);
}

void for_each_module(Module& root, const std::function<void(const std::string&, Module&)>& fn,
                     const std::string& path) {
  fn(path, root);
  Children children([&](const std::string& name, Module& child) {
    for_each_module(child, fn, path.empty() ? name : path + "." + name);
  });
  root.visit(children);
}

void move_to(Module& root, Device device) {
  for (const auto& list : {root.parameters(), root.buffers()})
    for (const NamedTensor& t : list) trireme::move_to(t.tensor, device);
}

void name_modules(Module& root, const std::string& path) {
  for_each_module(
      root, [](const std::string& at, Module& module) { module.set_path(at); }, path);
}

void manual_seed(std::uint64_t seed) {
  initial_values = {seed, 0};
  random_state.layers = 0;
  set_random_context({.seed = seed});
}

RandomKey next_initial_key() {
  constexpr std::uint64_t kPurpose = 0x696e6974;  // "init"
  return random_key(initial_values.seed, kPurpose, initial_values.count++);
}

std::uint64_t next_random_layer() { return random_state.layers++; }

void set_random_context(const RandomContext& context) {
  random_state.context = context;
  ++random_state.shards;
}

const RandomContext& random_context() { return random_state.context; }

namespace {

thread_local CallTape* open_tape = nullptr;

}  // namespace

std::uint64_t CallCounter::next() {
  const auto draw = [this] {
    if (shard_ != random_state.shards) calls_ = 0;
    shard_ = random_state.shards;
    return calls_++;
  };
  return open_tape ? open_tape->next(draw) : draw();
}

CallTape::Recording::Recording(CallTape& tape) : before_(std::exchange(open_tape, &tape)) {
  tape.replays_ = false;
}
CallTape::Recording::~Recording() { open_tape = before_; }

// The context is put back without beginning a new shard: counters of layers outside go on as they were.
CallTape::Replaying::Replaying(CallTape& tape, const RandomContext& context)
    : before_(std::exchange(open_tape, &tape)), context_(std::exchange(random_state.context, context)) {
  tape.replays_ = true;
  tape.at_ = 0;
}
CallTape::Replaying::~Replaying() {
  open_tape = before_;
  random_state.context = context_;
}

std::uint64_t CallTape::next(const std::function<std::uint64_t()>& draw) {
  if (!replays_) return numbers_.emplace_back(draw());
  TRIREME_CHECK(at_ < numbers_.size(),
                "recompute: random layers were called {} times at first and more often now", numbers_.size());
  return numbers_[at_++];
}

StatisticsSink*& statistics_sink() {
  thread_local StatisticsSink* sink = nullptr;
  return sink;
}

}  // namespace trireme::nn
