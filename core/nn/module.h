// Modules: ordinary structs that own parameters, buffers and other modules as members.
//
// A module lists its members in visit(), one line per member. There is no other registration, so any member
// can be replaced by assigning to it.
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

/// A tensor of a job's state. Ranks may divide its elements among them.
struct StateTensor : NamedTensor {
  /// Describes a tensor whose elements are divided among ranks: `tensor` is one-dimensional and holds this
  /// rank's elements of a row-major tensor of shape `whole`, from element `first` on.
  struct Part {
    Shape whole;
    std::int64_t first = 0;
  };
  std::optional<Part> part = {};
};

namespace nn {

class Module;

/// The interface that Module::visit() passes the members of a module to. Names must not contain dots.
class Visitor {
 public:
  virtual ~Visitor() = default;
  virtual void parameter(const std::string& name, Tensor& tensor) = 0;
  /// Is called for state that is saved but gets no gradient.
  virtual void buffer(const std::string& name, Tensor& tensor) = 0;
  /// Is called for a buffer of running statistics, which is given to the StatisticsSink in training.
  virtual void statistics(const std::string& name, Tensor& tensor) { buffer(name, tensor); }
  virtual void module(const std::string& name, Module& module) = 0;
};

/// A hook that is called with the inputs of a module's call. A result that is not empty replaces the inputs.
using ForwardPreHook = std::vector<Tensor>(const std::vector<Tensor>& inputs);
/// A hook that is called with a call's inputs and outputs. A result that is not empty replaces the outputs.
using ForwardHook = std::vector<Tensor>(const std::vector<Tensor>& inputs,
                                        const std::vector<Tensor>& outputs);
/// A hook that is called with the gradients of a call's inputs and outputs. The gradient of an input that
/// does not require grad is undefined. A result that is not empty replaces the gradients of the inputs.
using BackwardHook = std::vector<Tensor>(const std::vector<Tensor>& input_gradients,
                                         const std::vector<Tensor>& output_gradients);

class Module {
 public:
  virtual ~Module() = default;
  /// Computes the module's result. Modules with other inputs define another forward and do not override this.
  virtual Tensor forward(const Tensor& x);
  /// Calls forward() and the hooks before and after it.
  Tensor operator()(const Tensor& x) {
    if (!has_hooks()) return forward(x);
    return with_hooks({x}, [this](const std::vector<Tensor>& in) { return std::vector{forward(in[0])}; })[0];
  }
  /// Passes every member to `visitor`, in a fixed order.
  virtual void visit(Visitor& visitor);

  /// Returns all parameters of this module and the modules below it, in visiting order. A tensor used twice
  /// is listed once, under its first name.
  std::vector<NamedTensor> parameters();
  std::vector<NamedTensor> buffers();
  /// Returns the buffers that are running statistics.
  std::vector<NamedTensor> statistics();
  /// Switches this module and all below to training (dropout, batch statistics) or evaluation.
  void train(bool on = true);
  void eval() { train(false); }
  bool training() const { return training_; }
  /// Is called with the full path of this module once the root is known. The path of the root is "".
  virtual void set_path(const std::string& path);

  // Hooks run for calls of operator() only, not for calls of forward().
  HookHandle register_forward_pre_hook(std::function<ForwardPreHook> hook) {
    return pre_hooks_.add(std::move(hook));
  }
  HookHandle register_forward_hook(std::function<ForwardHook> hook) { return hooks_.add(std::move(hook)); }
  /// Registers a hook that backward calls once all gradients of a call's inputs are known. If no input
  /// requires grad, it is called once the gradients of the outputs are known.
  HookHandle register_full_backward_hook(std::function<BackwardHook> hook) {
    return backward_hooks_.add(std::move(hook));
  }

 protected:
  bool has_hooks() const { return !(pre_hooks_.empty() && hooks_.empty() && backward_hooks_.empty()); }
  /// Calls `run` between the hooks. Modules with other inputs or outputs call it in their operator(). Hooks
  /// must not change the numbers of inputs and outputs.
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
             (std::is_same_v<Sequential, std::decay_t<Modules>> && ...)))  // excludes the copy constructor
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

/// A list of modules of one kind, which their owner calls. They are named "0", "1", ... Copies of the list
/// share the modules.
///
///   nn::ModuleList<Block> blocks;
///   for (int i = 0; i < 12; ++i) blocks.emplace_back(width);
///   for (const auto& block : blocks) x = (*block)(x);
template <class M = Module>
class ModuleList : public Module {
 public:
  void push_back(std::shared_ptr<M> module) { modules_.push_back(std::move(module)); }
  /// Appends an M that is constructed from `args`.
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

/// Moves all parameters and buffers of `root` to a device, in place, so that handles to them follow. PyTorch
/// calls this `Module::to`; a member of that name would hide the op to() in every module.
void move_to(Module& root, Device device);

/// Calls set_path() of `root` and all modules below it. Random layers derive their keys from their paths, so
/// models with different `path`s draw different numbers. Data parallel wrappers call it.
void name_modules(Module& root, const std::string& path = "");

/// Seeds the initial values and the random layers of models that this thread constructs. Equal seeds and
/// orders of construction give equal models.
void manual_seed(std::uint64_t seed);
/// Returns the key of the next tensor to initialize.
RandomKey next_initial_key();

/// Returns the number of the next random layer, which identifies the layer until it has a path.
std::uint64_t next_random_layer();

/// The values that random layers of this thread mix into their keys.
struct RandomContext {
  std::uint64_t seed = 0;
  std::uint64_t step = 0;
  std::int64_t first_sample = 0;  ///< index of the batch's first sample in the global batch
  std::uint64_t round = 0;        ///< the number of the pass in the step
};
/// Sets this thread's random context and restarts the counts of calls of random layers. A training loop calls
/// it at the start of every shard. If it is never called, layers keep counting, so that no two calls draw the
/// same numbers.
void set_random_context(const RandomContext& context);
const RandomContext& random_context();

/// Counts the calls of one random layer since the shard began.
class CallCounter {
 public:
  std::uint64_t next();

 private:
  std::uint64_t calls_ = 0;
  std::uint64_t shard_ = 0;
};

/// Records the numbers that calls of random layers got on this thread, to give out the same numbers again.
class CallTape {
 public:
  /// Makes this thread record numbers during its lifetime.
  class Recording {
   public:
    explicit Recording(CallTape& tape);
    ~Recording();
    Recording(const Recording&) = delete;
    Recording& operator=(const Recording&) = delete;

   private:
    CallTape* before_;
  };
  /// Makes this thread give out the recorded numbers in order during its lifetime, with the random context in
  /// which they were recorded.
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

/// The interface that collects the statistics that each shard measured, to average them over all shards.
class StatisticsSink {
 public:
  virtual ~StatisticsSink() = default;
  /// Adds a value, so that the end of the step computes
  /// running = (1 - momentum) * running + momentum * (mean of all observed values). Returns false if the sink
  /// does not handle `running`; the module then updates it at once.
  virtual bool observe(const Tensor& running, const Tensor& value, double momentum) = 0;
};
/// Returns this thread's sink. If it is null, running statistics are updated at once.
StatisticsSink*& statistics_sink();

}  // namespace nn
}  // namespace trireme
