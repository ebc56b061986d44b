#include "kernels/cpu/kernels.h"

namespace trireme {

namespace {

constexpr KernelTable kTable{
    .device = "cpu",
    .multiplies_16_bits = false,
    .begin_recording = [] {},
    .end_recording = [] {},
    .submit_recorded = [] {},
    .recording_statistics = [] { return RecordingStatistics(); },
    .libraries = cpu::libraries,
    .engine_choices = [] { return EngineChoices(); },
    .take_notices = [] { return std::vector<std::string>(); },
    .copy_from_host = cpu::copy_from_host,
    .copy_to_host = cpu::copy_to_host,
    .enqueue_copy_to_host = cpu::enqueue_copy_to_host,
    .fill = cpu::fill,
    .copy = cpu::copy,
    .unary = cpu::unary,
    .binary = cpu::binary,
    .binary_with_scalars = cpu::binary_with_scalars,
    .compare = cpu::compare,
    .where = cpu::where,
    .reduce = cpu::reduce,
    .arg_extreme = cpu::arg_extreme,
    .cumsum = cpu::cumsum,
    .gather = cpu::gather,
    .scatter = cpu::scatter,
    .argsort = cpu::argsort,
    .nonzero = cpu::nonzero,
    .arange = cpu::arange,
    .linspace = cpu::linspace,
    .matmul = cpu::matmul,
    .conv2d_forward = cpu::conv2d_forward,
    .conv2d_backward_input = cpu::conv2d_backward_input,
    .conv2d_backward_weight = cpu::conv2d_backward_weight,
    .pool_forward = cpu::pool_forward,
    .pool_backward = cpu::pool_backward,
    .resample_forward = cpu::resample_forward,
    .resample_backward = cpu::resample_backward,
    .batch_norm_statistics = cpu::batch_norm_statistics,
    .batch_norm_apply = cpu::batch_norm_apply,
    .batch_norm_backward = cpu::batch_norm_backward,
    .row_norm_forward = cpu::row_norm_forward,
    .row_norm_backward = cpu::row_norm_backward,
    .row_norm_parameters = cpu::row_norm_parameters,
    .log_softmax = cpu::log_softmax,
    .cross_entropy_forward = cpu::cross_entropy_forward,
    .cross_entropy_backward = cpu::cross_entropy_backward,
    .attention_forward = cpu::attention_forward,
    .attention_backward = cpu::attention_backward,
    .lstm_forward = cpu::lstm_forward,
    .lstm_backward = cpu::lstm_backward,
    .gru_forward = cpu::gru_forward,
    .gru_backward = cpu::gru_backward,
    .dropout = cpu::dropout,
    .uniform = cpu::uniform,
    .normal = cpu::normal,
    .sgd = cpu::sgd,
    .adamw = cpu::adamw,
    .chunk_squares = cpu::chunk_squares,
    .tree_sum = cpu::tree_sum,
    .first_not_finite = cpu::first_not_finite,
    .running_average = cpu::running_average,
};

}  // namespace

const KernelTable& cpu_kernels() { return kTable; }

}  // namespace trireme
