// Lists of functions that users register on gradients and modules.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <vector>

namespace trireme {

/// Identifies a registered hook. Destroying the handle does not remove the hook.
class HookHandle {
 public:
  /// The registered function, of any signature; null once removed.
  using Slot = std::shared_ptr<const void>;
  HookHandle() = default;
  explicit HookHandle(std::weak_ptr<Slot> slot) : slot_(std::move(slot)) {}
  /// Removes the hook, so that it is not called any more. A second call does nothing. A hook may remove
  /// itself.
  void remove() {
    if (const auto slot = slot_.lock()) slot->reset();
  }

 private:
  std::weak_ptr<Slot> slot_;
};

/// Hooks in order of registration. A copy holds the same hooks: removing one removes it from both.
template <class Signature>
class Hooks {
 public:
  using Hook = std::function<Signature>;
  HookHandle add(Hook hook) {
    if (!running_) std::erase_if(slots_, [](const auto& slot) { return !*slot; });
    slots_.push_back(std::make_shared<HookHandle::Slot>(std::make_shared<const Hook>(std::move(hook))));
    return HookHandle(slots_.back());
  }
  bool empty() const {
    return std::none_of(slots_.begin(), slots_.end(), [](const auto& slot) { return bool(*slot); });
  }
  /// Calls use(hook) for each hook in order, including hooks that are added during the call.
  template <class Use>
  void each(const Use& use) const {
    const Running here{running_};
    for (std::size_t i = 0; i < slots_.size(); ++i)
      if (const HookHandle::Slot hook = *slots_[i]) use(*static_cast<const Hook*>(hook.get()));
  }

 private:
  struct Running {
    explicit Running(int& count) : count_(count) { ++count_; }
    ~Running() { --count_; }
    int& count_;
  };
  std::vector<std::shared_ptr<HookHandle::Slot>> slots_;
  mutable int running_ = 0;
};

}  // namespace trireme
