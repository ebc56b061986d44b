#include "core/nn/state.h"

#include <fmt/format.h>

#include <functional>
#include <unordered_map>
#include <unordered_set>

#include "core/autograd/autograd.h"
#include "core/ops/ops.h"

namespace trireme::nn {

namespace {

/// Calls fn(full name, tensor) for every defined tensor below a module, each time that it is met.
class EachTensor final : public Visitor {
 public:
  explicit EachTensor(std::function<void(const std::string&, Tensor&)> fn) : fn_(std::move(fn)) {}
  void parameter(const std::string& name, Tensor& t) override {
    if (t.defined()) fn_(prefix_ + name, t);
  }
  void buffer(const std::string& name, Tensor& t) override { parameter(name, t); }
  void module(const std::string& name, Module& m) override {
    const std::string before = prefix_;
    prefix_ += name + ".";
    m.visit(*this);
    prefix_ = before;
  }

 private:
  std::function<void(const std::string&, Tensor&)> fn_;
  std::string prefix_;
};

template <class Fn>
void for_each_tensor(Module& module, const Fn& fn) {
  EachTensor each(fn);
  module.visit(each);
}

/// Adds "; what: a, b" to the complaint if there are any names.
void complain(std::string& complaint, const char* what, const std::vector<std::string>& names) {
  if (names.empty()) return;
  complaint += fmt::format("{}{}: {}", complaint.empty() ? "" : "; ", what, fmt::join(names, ", "));
}

}  // namespace

StateDict state_dict(Module& module) {
  StateDict dict;
  for_each_tensor(module, [&](const std::string& name, Tensor& t) { dict.push_back({name, t.detach()}); });
  return dict;
}

LoadResult load_state_dict(Module& module, const StateDict& dict, bool strict) {
  LoadResult result;
  std::vector<std::string> misfits, twice;
  std::unordered_map<std::string, Tensor> given;
  for (const NamedTensor& item : dict) {
    TRIREME_CHECK(item.tensor.defined(), "load_state_dict: {} is an undefined tensor", item.name);
    if (!given.emplace(item.name, item.tensor).second) twice.push_back(item.name);
  }
  std::vector<std::pair<Tensor, Tensor>> copies;  // to, from
  std::unordered_map<std::string, bool> known;
  std::vector<std::pair<std::string, const TensorImpl*>> missing;
  std::unordered_set<const TensorImpl*> reached;
  for_each_tensor(module, [&](const std::string& name, Tensor& t) {
    known[name] = true;
    const auto found = given.find(name);
    if (found == given.end()) {
      missing.emplace_back(name, t.impl());
    } else if (found->second.shape() != t.shape()) {
      misfits.push_back(fmt::format("{} is {} in the dictionary and {} in the module", name,
                                    found->second.shape().to_string(), t.shape().to_string()));
    } else {
      copies.emplace_back(t, found->second);
      reached.insert(t.impl());
    }
  });
  for (auto& [name, tensor] : missing)  // a shared tensor needs one of its names
    if (!reached.contains(tensor)) result.missing.push_back(std::move(name));
  for (const NamedTensor& item : dict)
    if (!known.contains(item.name)) result.unexpected.push_back(item.name);
  std::string complaint;
  complain(complaint, "given twice", twice);
  if (strict) {
    complain(complaint, "missing", result.missing);
    complain(complaint, "unexpected", result.unexpected);
  }
  complain(complaint, "of another shape", misfits);
  if (!complaint.empty()) fail(ExitCode::kCheckpoint, "load_state_dict: {}", complaint);
  for (const auto& [to, from] : copies) to.check_writable("load_state_dict");
  const NoGrad off;
  for (const auto& [to, from] : copies) copy_(to, from);
  return result;
}

void requires_grad_(Module& module, bool on) {
  for (NamedTensor& p : module.parameters()) p.tensor.set_requires_grad(on);
}

void zero_grad(Module& module) {
  for (const NamedTensor& p : module.parameters()) p.tensor.set_grad({});
}

std::int64_t num_parameters(Module& module) {
  std::int64_t count = 0;
  for (const NamedTensor& p : module.parameters()) count += p.tensor.numel();
  return count;
}

void to(Module& module, DType dtype) {
  TRIREME_CHECK(is_floating(dtype), "to: a module cannot be made {}; it needs floating point",
                name_of(dtype));
  std::unordered_map<TensorImpl*, Tensor> converted;
  std::vector<Tensor> old;  // keeps old tensors alive, so that no new one gets the address of an old one
  for_each_tensor(module, [&](const std::string&, Tensor& t) {
    if (!is_floating(t.dtype()) || t.dtype() == dtype) return;
    const auto [place, is_new] = converted.try_emplace(t.impl());
    if (is_new) {
      old.push_back(t);
      place->second = to_dtype(t.detach(), dtype).set_requires_grad(t.requires_grad());
    }
    t = place->second;
  });
}

}  // namespace trireme::nn
