// What cuBLAS and cuDNN do on a GPU, done by the CPU's kernels when the stream comes to it.
#include "kernels/cpu/kernels.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/memory.h"
#include "tests/support/cuda_emulator/emulator.h"

namespace trireme::cuda {

namespace {

/// A view that may be absent, kept until the work runs.
struct Kept {
  View view;
  bool there;
  explicit Kept(const View* v) : view(v ? *v : View{}), there(v != nullptr) {}
  const View* get() const { return there ? &view : nullptr; }
};

}  // namespace

void matmul(const View& out, const View& a, const View& b) {
  emulator::enqueue(stream(), [=] { cpu::matmul(out, a, b); });
}

void conv2d_forward(const View& y, const View& x, const View& w, const View* bias, const Window& window,
                    std::int64_t groups) {
  emulator::enqueue(stream(), [=, b = Kept(bias)] { cpu::conv2d_forward(y, x, w, b.get(), window, groups); });
}

void conv2d_backward_input(const View& dx, const View& dy, const View& w, const Window& window,
                           std::int64_t groups) {
  emulator::enqueue(stream(), [=] { cpu::conv2d_backward_input(dx, dy, w, window, groups); });
}

void conv2d_backward_weight(const View& dw, const View& x, const View& dy, const Window& window,
                            std::int64_t groups) {
  emulator::enqueue(stream(), [=] { cpu::conv2d_backward_weight(dw, x, dy, window, groups); });
}

}  // namespace trireme::cuda
