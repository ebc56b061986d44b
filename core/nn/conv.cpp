#include "core/nn/conv.h"

#include "core/nn/init.h"

namespace trireme::nn {

namespace {

/// `channels` in each group; throws if they do not divide.
std::int64_t per_group(const char* name, const char* what, std::int64_t channels, std::int64_t groups) {
  TRIREME_CHECK(groups > 0 && channels % groups == 0, "{}: {} {} channels do not divide into {} groups", name,
                channels, what, groups);
  return channels / groups;
}

}  // namespace

Conv1d::Conv1d(std::int64_t in, std::int64_t out, std::int64_t kernel, Conv2dOptions o, bool with_bias)
    : options(o) {
  const std::int64_t channels = per_group("Conv1d", "input", in, o.groups), fan_in = channels * kernel;
  weight = default_parameter({out, channels, kernel}, fan_in);
  if (with_bias) bias = default_parameter({out}, fan_in);
}

void Conv1d::visit(Visitor& v) {
  v.parameter("weight", weight);
  v.parameter("bias", bias);
}

Conv2d::Conv2d(std::int64_t in, std::int64_t out, std::int64_t kernel, Conv2dOptions o, bool with_bias)
    : options(o) {
  const std::int64_t channels = per_group("Conv2d", "input", in, o.groups);
  const std::int64_t fan_in = channels * kernel * kernel;
  weight = default_parameter({out, channels, kernel, kernel}, fan_in);
  if (with_bias) bias = default_parameter({out}, fan_in);
}

void Conv2d::visit(Visitor& v) {
  v.parameter("weight", weight);
  v.parameter("bias", bias);
}

ConvTranspose2d::ConvTranspose2d(std::int64_t in, std::int64_t out, std::int64_t kernel,
                                 ConvTransposeOptions o, bool with_bias)
    : options(o) {
  per_group("ConvTranspose2d", "input", in, o.groups);
  const std::int64_t channels = per_group("ConvTranspose2d", "output", out, o.groups);
  const std::int64_t fan_in = channels * kernel * kernel;  // PyTorch's, though these are outputs
  weight = default_parameter({in, channels, kernel, kernel}, fan_in);
  if (with_bias) bias = default_parameter({out}, fan_in);
}

void ConvTranspose2d::visit(Visitor& v) {
  v.parameter("weight", weight);
  v.parameter("bias", bias);
}

}  // namespace trireme::nn
