// Entries of the table that have no CUDA kernel yet: each call says so.
#include "kernels/cuda/kernels.h"

namespace trireme::cuda {

namespace {

[[noreturn]] void missing(const char* op) {
  fail(ExitCode::kUsage, "device cuda: {} has no CUDA kernel yet; use --device cpu", op);
}

}  // namespace

void conv2d_forward(const View&, const View&, const View&, const View*, const Window&, std::int64_t) {
  missing("convolution");
}
void conv2d_backward_input(const View&, const View&, const View&, const Window&, std::int64_t) {
  missing("convolution");
}
void conv2d_backward_weight(const View&, const View&, const View&, const Window&, std::int64_t) {
  missing("convolution");
}
void attention_forward(const View&, const View&, const View&, const View&, const View&, const View*,
                       const AttentionRule&) {
  missing("attention");
}
void attention_backward(const View&, const View&, const View&, const View&, const View&, const View&,
                        const View&, const View&, const View&, const View*, const AttentionRule&) {
  missing("attention");
}

}  // namespace trireme::cuda
