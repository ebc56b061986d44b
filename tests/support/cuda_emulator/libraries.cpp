// Emulates shared libraries: looks up the functions that this folder provides, and runs CPU kernels as stream
// work in place of cuDNN's.
#include <atomic>
#include <map>
#include <span>
#include <string>
#include <type_traits>

#include "kernels/cpu/kernels.h"
#include "kernels/cuda/fused_attention.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/library.h"
#include "kernels/cuda/memory.h"
#include "kernels/cuda/recorder.h"
#include "tests/support/cuda_emulator/emulator.h"
#include "tests/support/cuda_emulator/wide.h"

namespace trireme::cuda {

using emulator::Wide;

namespace {

/// Stores an optional view until the work runs.
struct Kept {
  View view;
  bool there;
  explicit Kept(const View* v) : view(v ? *v : View{}), there(v != nullptr) {}
};

std::map<std::string, void*>& functions() {
  static std::map<std::string, void*> all;
  return all;
}

/// Enqueues fn as a kernel, so that it can be recorded in a CUDA graph.
template <class Fn>
void enqueue_on_cpu(const Fn& fn) {
  static_assert(std::is_trivially_copyable_v<Fn>);
  const emulator::KernelFunction run = [](std::int64_t, const void* f) { (*static_cast<const Fn*>(f))(); };
  enqueue(Kernel{reinterpret_cast<const void*>(run), 1, 1, 1, std::as_bytes(std::span(&fn, 1))});
}

}  // namespace

bool emulator::provide(std::initializer_list<std::pair<const char*, void*>> more) {
  functions().insert(more.begin(), more.end());
  return true;
}

Library::Library(std::initializer_list<const char*> names, const char*) : name_(*names.begin()) {}

const std::string& libraries() {
  static const std::string text = "emulated device";
  return text;
}

void* Library::find(const char* name) const {
  const auto found = functions().find(name);
  if (found == functions().end()) fail(ExitCode::kInternal, "the emulator has no {} of {}", name, name_);
  return found->second;
}

void conv2d_forward(const View& y, const View& x, const View& w, const View* bias, const Window& window,
                    std::int64_t groups) {
  emulator::making_plan();
  enqueue_on_cpu([=, b = Kept(bias)] {
    const Wide to(y), image(x), filter(w), shift(b.view);
    cpu::conv2d_forward(to.view(), image.view(), filter.view(), b.there ? &shift.view() : nullptr, window,
                        groups);
    to.store();
  });
}

void conv2d_backward_input(const View& dx, const View& dy, const View& w, const Window& window,
                           std::int64_t groups) {
  emulator::making_plan();
  enqueue_on_cpu([=] {
    const Wide to(dx), slopes(dy), filter(w);
    cpu::conv2d_backward_input(to.view(), slopes.view(), filter.view(), window, groups);
    to.store();
  });
}

void conv2d_backward_weight(const View& dw, const View& x, const View& dy, const Window& window,
                            std::int64_t groups) {
  emulator::making_plan();
  enqueue_on_cpu([=] {
    const Wide to(dw), image(x), slopes(dy);
    cpu::conv2d_backward_weight(to.view(), image.view(), slopes.view(), window, groups);
    to.store();
  });
}

namespace {
std::atomic<int> attentions_fused = 0;
}

int emulator::fused_attentions() { return attentions_fused; }

std::string run_fused_attention(const FusedShape& s, const std::array<void*, kOperands>& memory) {
  emulator::making_plan();
  for (const void* operand : memory)
    if (reinterpret_cast<std::uintptr_t>(operand) % Aligned::kBytes != 0)
      fail(ExitCode::kInternal, "the emulated attention got an operand that is not aligned to 16 bytes");
  // Limit the workspace as real ones are limited: cuDNN's deterministic kernels before 9.25 keep the gradient
  // of the attention weights there.
  constexpr std::int64_t kMostWorkspace = std::int64_t{1} << 30;
  if (s.backward && 2 * s.batch * s.heads * s.queries * s.keys > kMostWorkspace)
    return "the emulated library refuses workspaces over 1 GiB";
  add_engine(describe(s), "emulated kernel");
  ++attentions_fused;
  enqueue_on_cpu([=] {
    const AttentionRule rule{.scale = s.scale, .causal = s.causal};
    const auto view = [&](Operand o) {
      const auto& [sample, head, row] = s.strides[o];
      return Wide(View{
          memory[o], s.dtype, 4, {s.batch, s.heads, s.rows_of(o), s.width_of(o)}, {sample, head, row, 1}});
    };
    const View log_sums{memory[kLogSums],
                        DType::kFloat32,
                        3,
                        {s.batch, s.heads, s.queries},
                        {s.heads * s.queries, s.queries, 1}};
    const Wide q = view(kQ), k = view(kK), v = view(kV), out = view(kOut);
    if (!s.backward) {
      cpu::attention_forward(out.view(), log_sums, q.view(), k.view(), v.view(), nullptr, rule);
      out.store();
      return;
    }
    const Wide dout = view(kOutGradient), dq = view(kQGradient), dk = view(kKGradient), dv = view(kVGradient);
    cpu::attention_backward(dq.view(), dk.view(), dv.view(), dout.view(), out.view(), log_sums, q.view(),
                            k.view(), v.view(), nullptr, rule);
    for (const Wide* result : {&dq, &dk, &dv}) result->store();
  });
  return "";
}

}  // namespace trireme::cuda
