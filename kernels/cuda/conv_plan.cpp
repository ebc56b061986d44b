#include "kernels/cuda/conv_plan.h"

#include <fmt/ranges.h>

namespace trireme::cuda {

namespace {

/// (N,C,H,W) with channels next to each other.
std::array<std::int64_t, 4> channels_last(const std::array<std::int64_t, 4>& dims) {
  return {dims[1] * dims[2] * dims[3], 1, dims[3] * dims[1], dims[1]};
}

dnn::Descriptor convolution(const ConvShape& s) {
  dnn::Descriptor made(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  const std::array padding{s.padding_h, s.padding_w}, dilation{s.dilation_h, s.dilation_w},
      stride{s.stride_h, s.stride_w};
  // Sums of 16-bit types are float32.
  made.set_one(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE,
               s.dtype == DType::kFloat64 ? CUDNN_DATA_DOUBLE : CUDNN_DATA_FLOAT)
      .set_one(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, CUDNN_CROSS_CORRELATION)
      .set_one(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, std::int64_t{2})
      .set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, padding)
      .set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, padding)
      .set(CUDNN_ATTR_CONVOLUTION_DILATIONS, dilation)
      .set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, stride)
      .finalize();
  return made;
}

/// The library's names of a pass's attributes.
struct Names {
  cudnnBackendDescriptorType_t type;
  cudnnBackendAttributeName_t x, w, y, convolution, alpha, beta;
};

Names names_of(ConvPass pass) {
  switch (pass) {
    case ConvPass::kForward:
      return {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA};
    case ConvPass::kBackwardInput:
      return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA};
    case ConvPass::kBackwardWeight:
      break;
  }
  return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA};
}

}  // namespace

dnn::Plan plan_conv(const dnn::Target& target, const ConvShape& s) {
  std::vector<dnn::Descriptor> parts;
  const std::array<std::int64_t, 4>* const dims[] = {&s.x, &s.w, &s.y};
  for (std::size_t i = 0; i < 3; ++i)
    parts.push_back(dnn::tensor(static_cast<std::int64_t>(i), s.dtype, *dims[i], channels_last(*dims[i])));
  parts.push_back(convolution(s));
  const Names names = names_of(s.pass);
  dnn::Descriptor operation(names.type);
  operation.set(names.x, parts[0]).set(names.w, parts[1]).set(names.y, parts[2]);
  operation.set(names.convolution, parts[3]);
  if (s.dtype == DType::kFloat64)
    operation.set_one(names.alpha, CUDNN_TYPE_DOUBLE, 1.0).set_one(names.beta, CUDNN_TYPE_DOUBLE, 0.0);
  else
    operation.set_one(names.alpha, CUDNN_TYPE_FLOAT, 1.0f).set_one(names.beta, CUDNN_TYPE_FLOAT, 0.0f);
  operation.finalize();
  parts.push_back(std::move(operation));
  return {target, std::move(parts), s.dtype, describe(s)};
}

std::string describe(const ConvShape& s) {
  constexpr const char* kPasses[] = {"forward", "backward of inputs", "backward of weights"};
  return fmt::format("convolution {}, {}, x ({}), w ({}), stride {}x{}, padding {}x{}, dilation {}x{}",
                     kPasses[static_cast<int>(s.pass)], name_of(s.dtype), fmt::join(s.x, ","),
                     fmt::join(s.w, ","), s.stride_h, s.stride_w, s.padding_h, s.padding_w, s.dilation_h,
                     s.dilation_w);
}

}  // namespace trireme::cuda
