#include "kernels/cuda/engines.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/memory.h"

namespace trireme {

namespace {

constexpr KernelTable kTable{
    .device = "cuda",
    .multiplies_16_bits = true,
    .begin_recording = cuda::begin_recording,
    .end_recording = cuda::end_recording,
    .submit_recorded = cuda::submit_recorded,
    .recording_statistics = cuda::recording_statistics,
    .libraries = cuda::libraries,
    .engine_choices = cuda::engine_choices,
    .take_notices = cuda::take_notices,
    .copy_from_host = cuda::copy_from_host,
    .copy_to_host = cuda::copy_to_host,
    .enqueue_copy_to_host = cuda::enqueue_copy_to_host,
    .fill = cuda::fill,
    .copy = cuda::copy,
    .unary = cuda::unary,
    .binary = cuda::binary,
    .binary_with_scalars = cuda::binary_with_scalars,
    .compare = cuda::compare,
    .where = cuda::where,
    .reduce = cuda::reduce,
    .arg_extreme = cuda::arg_extreme,
    .cumsum = cuda::cumsum,
    .gather = cuda::gather,
    .scatter = cuda::scatter,
    .argsort = cuda::argsort,
    .nonzero = cuda::nonzero,
    .arange = cuda::arange,
    .linspace = cuda::linspace,
    .matmul = cuda::matmul,
    .conv2d_forward = cuda::conv2d_forward,
    .conv2d_backward_input = cuda::conv2d_backward_input,
    .conv2d_backward_weight = cuda::conv2d_backward_weight,
    .pool_forward = cuda::pool_forward,
    .pool_backward = cuda::pool_backward,
    .resample_forward = cuda::resample_forward,
    .resample_backward = cuda::resample_backward,
    .batch_norm_statistics = cuda::batch_norm_statistics,
    .batch_norm_apply = cuda::batch_norm_apply,
    .batch_norm_backward = cuda::batch_norm_backward,
    .row_norm_forward = cuda::row_norm_forward,
    .row_norm_backward = cuda::row_norm_backward,
    .row_norm_parameters = cuda::row_norm_parameters,
    .log_softmax = cuda::log_softmax,
    .cross_entropy_forward = cuda::cross_entropy_forward,
    .cross_entropy_backward = cuda::cross_entropy_backward,
    .attention_forward = cuda::attention_forward,
    .attention_backward = cuda::attention_backward,
    .lstm_forward = cuda::lstm_forward,
    .lstm_backward = cuda::lstm_backward,
    .gru_forward = cuda::gru_forward,
    .gru_backward = cuda::gru_backward,
    .dropout = cuda::dropout,
    .uniform = cuda::uniform,
    .normal = cuda::normal,
    .sgd = cuda::sgd,
    .adamw = cuda::adamw,
    .chunk_squares = cuda::chunk_squares,
    .tree_sum = cuda::tree_sum,
    .first_not_finite = cuda::first_not_finite,
    .running_average = cuda::running_average,
};

}  // namespace

const KernelTable& cuda_kernels() {
  cuda::stream_as_it_is();  // throws where there is no GPU
  return kTable;
}

}  // namespace trireme
