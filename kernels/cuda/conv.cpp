// Convolution by cuDNN. Filters are turned so that channels lie next to each other, as in the images.
#include <algorithm>
#include <map>
#include <memory>
#include <mutex>

#include "kernels/cuda/conv_plan.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/memory.h"

namespace trireme::cuda {

namespace {

std::array<std::int64_t, 4> dims_of(const View& v) {
  return {v.shape[0], v.shape[1], v.shape[2], v.shape[3]};
}

/// A copy of filters in which the channels are next to each other.
class TurnedFilters {
 public:
  explicit TurnedFilters(const View& w)
      : memory_(static_cast<std::size_t>(w.numel()) * size_of(w.dtype)), view_(w) {
    view_.data = memory_.as<void>();
    const std::int64_t *s = w.shape, strides[] = {s[1] * s[2] * s[3], 1, s[3] * s[1], s[1]};
    std::copy_n(strides, 4, view_.strides);
  }
  const View& view() const { return view_; }

 private:
  Scratch memory_;
  View view_;
};

void run(ConvPass pass, const View& x, const View& w, const View& y, const Window& window) {
  static std::mutex mutex;
  static auto* const plans = new std::map<ConvShape, std::unique_ptr<dnn::Plan>>;  // shapes repeat
  const std::lock_guard lock(mutex);
  const dnn::Target& gpu = dnn::this_gpu();
  const ConvShape shape{pass,
                        x.dtype,
                        dims_of(x),
                        dims_of(w),
                        dims_of(y),
                        window.stride_h,
                        window.stride_w,
                        window.padding_h,
                        window.padding_w,
                        window.dilation_h,
                        window.dilation_w};
  auto& plan = (*plans)[shape];
  if (!plan) plan = std::make_unique<dnn::Plan>(plan_conv(gpu, shape));
  const auto aligned = [](const View& v) {
    return Aligned(v.data, static_cast<std::size_t>(v.numel()) * size_of(v.dtype));
  };
  const Aligned all[] = {aligned(x), aligned(w), aligned(y)};
  void* const memory[] = {all[0].get(), all[1].get(), all[2].get()};
  plan->enqueue(gpu, memory);
  const Aligned* const result[] = {&all[2], &all[0], &all[1]};  // in the order of ConvPass
  result[static_cast<int>(pass)]->write_back();
}

}  // namespace

void conv2d_forward(const View& y, const View& x, const View& w, const View* bias, const Window& window,
                    std::int64_t) {
  if (y.numel() == 0) return;
  if (x.numel() == 0 || w.numel() == 0) {
    fill(y, 0);
  } else {
    const TurnedFilters turned(w);
    copy(turned.view(), w);
    run(ConvPass::kForward, x, turned.view(), y, window);
  }
  if (!bias) return;
  View wide = y;
  wide.data = bias->data;
  for (int d = 0; d < 4; ++d) wide.strides[d] = d == 1 ? bias->strides[0] : 0;
  binary(BinaryOp::add, y, y, wide);
}

void conv2d_backward_input(const View& dx, const View& dy, const View& w, const Window& window,
                           std::int64_t) {
  if (dx.numel() == 0) return;
  if (dy.numel() == 0 || w.numel() == 0) return fill(dx, 0);
  const TurnedFilters turned(w);
  copy(turned.view(), w);
  run(ConvPass::kBackwardInput, dx, turned.view(), dy, window);
}

void conv2d_backward_weight(const View& dw, const View& x, const View& dy, const Window& window,
                            std::int64_t) {
  if (dw.numel() == 0) return;
  if (x.numel() == 0 || dy.numel() == 0) return fill(dw, 0);
  const TurnedFilters turned(dw);
  run(ConvPass::kBackwardWeight, x, turned.view(), dy, window);
  copy(dw, turned.view());
}

}  // namespace trireme::cuda
