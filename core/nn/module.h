// Modules: ordinary structs that own parameters, buffers and other modules as members.
//
// A module says what it owns in visit(), one line a member; that is all there is to registration, so any
// member can be replaced by assigning to it.
//
//   struct Net : nn::Module {
//     nn::Linear hidden{784, 128}, out{128, 10};
//     Tensor forward(const Tensor& x) override { return out(relu(hidden(flatten(x, 1)))); }
//     void visit(nn::Visitor& v) override { v.module("hidden", hidden); v.module("out", out); }
//   };
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "core/autograd/hooks.h"
#include "core/tensor/tensor.h"
#include "kernels/rng.h"

namespace trireme {

/// A tensor with the path that its modules give it: "layer1.0.conv1.weight".
struct NamedTensor {
  std::string name;
  Tensor tensor;
};

/// Of the state of a job, which ranks may share out.
struct StateTensor : NamedTensor {
  /// `tensor` (one-dimensional) holds the elements of a tensor of this shape, row-major, from `first` on, and
  /// other ranks hold the others. Without it, it is all there.
  struct Part {
    Shape whole;
    std::int64_t first = 0;
  };
  std::optional<Part> part = {};
};

namespace nn {

class Module;

/// Is shown the members of a module. Names must not contain dots.
class Visitor {
 public:
  virtual ~Visitor() = default;
  virtual void parameter(const std::string& name, Tensor& tensor) = 0;
  /// State that is saved but gets no gradient.
  virtual void buffer(const std::string& name, Tensor& tensor) = 0;
  /// A buffer of running statistics, which is given to the StatisticsSink in training.
  virtual void statistics(const std::string& name, Tensor& tensor) { buffer(name, tensor); }
  virtual void module(const std::string& name, Module& module) = 0;
};

/// Sees what a module is called with; a result that is not empty replaces it.
using ForwardPreHook = std::vector<Tensor>(const std::vector<Tensor>& inputs);
/// Sees a call's inputs and results; a result that is not empty replaces the latter.
using ForwardHook = std::vector<Tensor>(const std::vector<Tensor>& inputs,
                                        const std::vector<Tensor>& outputs);
/// Sees the gradients of a call's inputs (undefined where none is wanted) and results; a result that is not
/// empty replaces the former.
using BackwardHook = std::vector<Tensor>(const std::vector<Tensor>& input_gradients,
                                         const std::vector<Tensor>& output_gradients);

class Module {
 public:
  virtual ~Module() = default;
  /// Modules with other inputs define a forward of their own and leave this one alone.
  virtual Tensor forward(const Tensor& x);
  /// forward(), with the hooks around it.
  Tensor operator()(const Tensor& x) {
    if (!has_hooks()) return forward(x);
    return with_hooks({x}, [this](const std::vector<Tensor>& in) { return std::vector{forward(in[0])}; })[0];
  }
  /// Shows every member to `visitor`, in a fixed order.
  virtual void visit(Visitor& visitor);

  /// All parameters below this module, in visiting order. A tensor used twice is listed once, under its first
  /// name.
  std::vector<NamedTensor> parameters();
  std::vector<NamedTensor> buffers();
  /// The buffers that are running statistics.
  std::vector<NamedTensor> statistics();
  /// Switches this module and all below to training (dropout, batch statistics) or evaluation.
  void train(bool on = true);
  void eval() { train(false); }
  bool training() const { return training_; }
  /// Called with the full path of each module once the root is known; "" for the root itself.
  virtual void set_path(const std::string& path);

  // Hooks see calls through operator(), not those of forward() itself.
  HookHandle register_forward_pre_hook(std::function<ForwardPreHook> hook) {
    return pre_hooks_.add(std::move(hook));
  }
  HookHandle register_forward_hook(std::function<ForwardHook> hook) { return hooks_.add(std::move(hook)); }
  /// Called in backward once all gradients of a call's inputs are known; if no input wants one, when those of
  /// the results are.
  HookHandle register_full_backward_hook(std::function<BackwardHook> hook) {
    return backward_hooks_.add(std::move(hook));
  }

 protected:
  bool has_hooks() const { return !(pre_hooks_.empty() && hooks_.empty() && backward_hooks_.empty()); }
  /// For the operator() of modules with other inputs or results: `run` between the hooks. The numbers of
  /// inputs and results stay.
  std::vector<Tensor> with_hooks(
      std::vector<Tensor> inputs,
      const std::function<std::vector<Tensor>(const std::vector<Tensor>&)>& run) const;

 private:
  bool training_ = true;
  Hooks<ForwardPreHook> pre_hooks_;
  Hooks<ForwardHook> hooks_;
  Hooks<BackwardHook> backward_hooks_;
};

/// Runs its modules one after another. Copies share parameters.
class Sequential : public Module {
 public:
  template <class... Modules>
  requires((std::is_base_of_v<Module, std::decay_t<Modules>> && ...) &&
           !(sizeof...(Modules) == 1 &&
             (std::is_same_v<Sequential, std::decay_t<Modules>> && ...)))  // that is a copy
      explicit Sequential(Modules&&... modules) {
    (modules_.push_back(std::make_shared<std::decay_t<Modules>>(std::forward<Modules>(modules))), ...);
  }
  void push_back(std::shared_ptr<Module> module) {
    TRIREME_CHECK(module, "Sequential: push_back() of a null pointer");
    modules_.push_back(std::move(module));
  }
  std::size_t size() const { return modules_.size(); }
  std::shared_ptr<Module>& operator[](std::size_t i) {
    TRIREME_CHECK(i < modules_.size(), "Sequential: index {} is outside its {} modules", i, modules_.size());
    return modules_[i];
  }
  using Module::operator();
  Tensor forward(const Tensor& x) override;
  void visit(Visitor& visitor) override;

 private:
  std::vector<std::shared_ptr<Module>> modules_;
};

/// Modules of one kind in a row, to call as their owner likes; they are named "0", "1", ... Copies share
/// them.
///
///   nn::ModuleList<Block> blocks;
///   for (int i = 0; i < 12; ++i) blocks.emplace_back(width);
///   for (const auto& block : blocks) x = (*block)(x);
template <class M = Module>
class ModuleList : public Module {
 public:
  void push_back(std::shared_ptr<M> module) { modules_.push_back(std::move(module)); }
  /// Adds an M made of `args`.
  template <class... Args>
  M& emplace_back(Args&&... args) {
    return *modules_.emplace_back(std::make_shared<M>(std::forward<Args>(args)...));
  }
  std::size_t size() const { return modules_.size(); }
  std::shared_ptr<M>& operator[](std::size_t i) {
    TRIREME_CHECK(i < modules_.size(), "ModuleList: index {} is outside its {} modules", i, modules_.size());
    return modules_[i];
  }
  auto begin() const { return modules_.begin(); }
  auto end() const { return modules_.end(); }
  void visit(Visitor& visitor) override {
    for (std::size_t i = 0; i < modules_.size(); ++i) visitor.module(std::to_string(i), *modules_[i]);
  }

 private:
  std::vector<std::shared_ptr<M>> modules_;
};

/// Calls fn with `root` and all modules below it and their paths, a module before its members.
void for_each_module(Module& root, const std::function<void(const std::string& path, Module&)>& fn,
                     const std::string& path = "");

/// Moves all parameters and buffers of `root` to a device, in place: handles on them follow. (`Module::to` in
/// PyTorch; a member of that name would hide the op from every module.)
void move_to(Module& root, Device device);

/// Names `root` and all modules below it; random layers take their keys from their names. Data parallel
/// wrappers call it. Models with different `path`s draw different numbers.
void name_modules(Module& root, const std::string& path = "");

/// Starts the sequences of initial values and of random layers on this thread: equal seeds and construction
/// orders give equal models.
void manual_seed(std::uint64_t seed);
/// The key of the next tensor to initialize.
RandomKey next_initial_key();

/// The number of the next random layer, which tells it apart until it has a path.
std::uint64_t next_random_layer();

/// What random layers mix into their keys, per thread.
struct RandomContext {
  std::uint64_t seed = 0;
  std::uint64_t step = 0;
  std::int64_t first_sample = 0;  ///< place of the batch's first sample in the global batch
  std::uint64_t round = 0;        ///< of the step's passes over its shards
};
/// A training loop calls it at the start of every shard: layers count their calls anew. Without a loop they
/// just count on, so that no two calls draw the same numbers.
void set_random_context(const RandomContext& context);
const RandomContext& random_context();

/// Numbers the calls of one random layer since the shard began.
class CallCounter {
 public:
  std::uint64_t next();

 private:
  std::uint64_t calls_ = 0;
  std::uint64_t shard_ = 0;
};

/// The numbers that calls of random layers got on this thread, to give them out once more.
class CallTape {
 public:
  /// While alive, numbers are written down.
  class Recording {
   public:
    explicit Recording(CallTape& tape);
    ~Recording();
    Recording(const Recording&) = delete;
    Recording& operator=(const Recording&) = delete;

   private:
    CallTape* before_;
  };
  /// While alive, the written numbers are given out, in order, under the context that they were drawn in.
  class Replaying {
   public:
    Replaying(CallTape& tape, const RandomContext& context);
    ~Replaying();
    Replaying(const Replaying&) = delete;
    Replaying& operator=(const Replaying&) = delete;

   private:
    CallTape* before_;
    RandomContext context_;
  };
  std::uint64_t next(const std::function<std::uint64_t()>& draw);

 private:
  std::vector<std::uint64_t> numbers_;
  std::size_t at_ = 0;
  bool replays_ = false;
};

/// Takes the statistics that a shard measured, to average them over all shards.
class StatisticsSink {
 public:
  virtual ~StatisticsSink() = default;
  /// At the end of the step: running = (1 - momentum) * running + momentum * (mean of all observed values).
  /// False if `running` is not the sink's business: then the module updates it at once.
  virtual bool observe(const Tensor& running, const Tensor& value, double momentum) = 0;
};
/// Of this thread; null: running statistics are updated at once.
StatisticsSink*& statistics_sink();

}  // namespace nn
}  // namespace trireme
