// Times one op at a time on generated data, forward and backward, as tests/bench/ops.py asks for it.
//
//   ninja -C build trireme_bench && python3 tests/bench/ops.py build/tests/bench_ops
//
// Reads lines "NAME SECONDS" from standard input. Answers each with a line "FORWARD BOTH": the medians in
// microseconds of the op alone and of the op with its backward pass. `--list` prints "NAME INPUTS DOMAIN" of
// every op and ends.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "core/autograd/autograd.h"
#include "core/ops/ops.h"
#include "kernels/error.h"

namespace trireme {
namespace {

constexpr std::int64_t kRows = 1024, kColumns = 1024;

using Inputs = std::vector<Tensor>;

struct Case {
  int inputs;
  /// Names the range of the inputs. all: -3 to 3; positive: 0.1 to 3; unit: -0.9 to 0.9; share: 0.1 to 0.9.
  const char* domain;
  std::function<Tensor(const Inputs&)> op;
};

#define TRIREME_ONE(name, domain)                             \
  {                                                           \
#name, {                                                  \
      1, domain, [](const Inputs& in) { return name(in[0]); } \
    }                                                         \
  }
#define TRIREME_TWO(name, domain)                                    \
  {                                                                  \
#name, {                                                         \
      2, domain, [](const Inputs& in) { return name(in[0], in[1]); } \
    }                                                                \
  }
#define TRIREME_CALL(name, inputs, domain, call)            \
  {                                                         \
    name, {                                                 \
      inputs, domain, [](const Inputs& in) { return call; } \
    }                                                       \
  }
const std::map<std::string, Case> kCases{
    TRIREME_ONE(neg, "all"),
    TRIREME_ONE(abs, "all"),
    TRIREME_ONE(square, "all"),
    TRIREME_ONE(relu, "all"),
    TRIREME_ONE(exp, "all"),
    TRIREME_ONE(exp2, "all"),
    TRIREME_ONE(expm1, "all"),
    TRIREME_ONE(log, "positive"),
    TRIREME_ONE(log2, "positive"),
    TRIREME_ONE(log10, "positive"),
    TRIREME_ONE(log1p, "positive"),
    TRIREME_ONE(sqrt, "positive"),
    TRIREME_ONE(rsqrt, "positive"),
    TRIREME_ONE(reciprocal, "positive"),
    TRIREME_ONE(sin, "all"),
    TRIREME_ONE(cos, "all"),
    TRIREME_ONE(tan, "unit"),
    TRIREME_ONE(asin, "unit"),
    TRIREME_ONE(acos, "unit"),
    TRIREME_ONE(atan, "all"),
    TRIREME_ONE(sinh, "all"),
    TRIREME_ONE(cosh, "all"),
    TRIREME_ONE(tanh, "all"),
    TRIREME_ONE(erf, "all"),
    TRIREME_ONE(erfc, "all"),
    TRIREME_ONE(floor, "all"),
    TRIREME_ONE(round, "all"),
    TRIREME_ONE(sigmoid, "all"),
    TRIREME_ONE(log_sigmoid, "all"),
    TRIREME_ONE(softplus, "all"),
    TRIREME_ONE(silu, "all"),
    TRIREME_ONE(relu6, "all"),
    TRIREME_ONE(hardtanh, "all"),
    TRIREME_ONE(leaky_relu, "all"),
    TRIREME_ONE(elu, "all"),
    TRIREME_ONE(gelu, "all"),
    TRIREME_ONE(nan_to_num, "all"),
    TRIREME_TWO(add, "all"),
    TRIREME_TWO(sub, "all"),
    TRIREME_TWO(mul, "all"),
    TRIREME_TWO(div, "positive"),
    TRIREME_TWO(maximum, "all"),
    TRIREME_TWO(minimum, "all"),
    TRIREME_TWO(pow, "positive"),
    TRIREME_TWO(atan2, "positive"),
    TRIREME_TWO(fmod, "positive"),
    TRIREME_TWO(remainder, "positive"),
    TRIREME_CALL("gelu_tanh", 1, "all", gelu(in[0], Gelu::kTanh)),
    TRIREME_CALL("clamp", 1, "all", clamp(in[0], -1, 1)),
    TRIREME_CALL("add_scalar", 1, "all", add(in[0], 2)),
    TRIREME_CALL("mul_scalar", 1, "all", mul(in[0], 2)),
    TRIREME_CALL("div_scalar", 1, "all", div(in[0], 3)),
    TRIREME_CALL("rsub_scalar", 1, "all", rsub(in[0], 2)),
    TRIREME_CALL("pow2", 1, "all", pow(in[0], 2)),
    TRIREME_CALL("pow3", 1, "all", pow(in[0], 3)),
    TRIREME_CALL("pow_half", 1, "positive", pow(in[0], 0.5)),
    TRIREME_CALL("pow_base", 1, "all", pow(Scalar(2), in[0])),
    TRIREME_CALL("lerp", 2, "all", lerp(in[0], in[1], 0.25)),
    TRIREME_CALL("lerp_weight", 3, "share", lerp(in[0], in[1], in[2])),
    TRIREME_CALL("addcmul", 3, "all", addcmul(in[0], in[1], in[2], 0.5)),
    TRIREME_CALL("addcdiv", 3, "positive", addcdiv(in[0], in[1], in[2], 0.5)),
    TRIREME_CALL("where", 2, "all", where(gt(in[0].detach(), 0), in[0], in[1])),
    TRIREME_CALL("masked_fill", 1, "all", masked_fill(in[0], gt(in[0].detach(), 0), 0)),
    TRIREME_CALL("softmax", 1, "all", softmax(in[0])),
    TRIREME_CALL("log_softmax", 1, "all", log_softmax(in[0])),
    TRIREME_CALL("logsumexp", 1, "all", logsumexp(in[0], {-1})),
    TRIREME_CALL("layer_norm", 1, "all", layer_norm(in[0])),
    TRIREME_CALL("rms_norm", 1, "all", rms_norm(in[0])),
    TRIREME_CALL("group_norm", 1, "all", group_norm(reshape(in[0], {16, 64, 32, 32}), 8)),
    TRIREME_CALL("sum", 1, "all", sum(in[0])),
    TRIREME_CALL("mean", 1, "all", mean(in[0])),
    TRIREME_CALL("sum_rows", 1, "all", sum(in[0], {0})),
    TRIREME_CALL("sum_columns", 1, "all", sum(in[0], {1})),
    TRIREME_CALL("prod_columns", 1, "share", prod(in[0], {1})),
    TRIREME_CALL("amax_columns", 1, "all", amax(in[0], {1})),
    TRIREME_CALL("var_columns", 1, "all", var(in[0], {1})),
    TRIREME_CALL("std_columns", 1, "all", std(in[0], {1})),
    TRIREME_CALL("norm", 1, "all", norm(in[0])),
    TRIREME_CALL("norm1_columns", 1, "all", norm(in[0], 1, {1})),
    TRIREME_CALL("norm3_columns", 1, "all", norm(in[0], 3, {1})),
    TRIREME_CALL("cumsum", 1, "all", cumsum(in[0], 1)),
    TRIREME_CALL("mse_loss", 2, "all", mse_loss(in[0], in[1].detach())),
    TRIREME_CALL("l1_loss", 2, "all", l1_loss(in[0], in[1].detach())),
    TRIREME_CALL("huber_loss", 2, "all", huber_loss(in[0], in[1].detach())),
    TRIREME_CALL("bce_with_logits", 2, "share", bce_with_logits(in[0], in[1].detach())),
    TRIREME_CALL("kl_div", 2, "share", kl_div(in[0], in[1].detach())),
    TRIREME_CALL("cat", 2, "all", cat({in[0], in[1]}, 1)),
    TRIREME_CALL("flip", 1, "all", flip(in[0], {1})),
    TRIREME_CALL("roll", 1, "all", roll(in[0], 5, 1)),
    TRIREME_CALL("pad", 1, "all", pad(in[0], {1, 1, 1, 1})),
    TRIREME_CALL("tril", 1, "all", tril(in[0])),
    TRIREME_CALL("repeat", 1, "all", repeat(narrow(in[0], 0, 0, 512), {2, 1})),
    TRIREME_CALL("transposed", 1, "all", contiguous(transpose(in[0], 0, 1))),
};
#undef TRIREME_ONE
#undef TRIREME_TWO
#undef TRIREME_CALL

/// Returns a matrix of shuffled numbers of the domain, which requires a gradient. Each `input` has other
/// numbers. ramp() in ops.py gives the same matrix.
Tensor ramp(const std::string& domain, int input) {
  const float low = domain == "all"    ? -3.0f
                    : domain == "unit" ? -0.9f
                                       : 0.1f,
              high = domain == "unit" || domain == "share" ? 0.9f : 3.0f;
  std::vector<float> values(kRows * kColumns);
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = low + (high - low) *
                          static_cast<float>((i * 7919 + 101 * static_cast<std::size_t>(input)) % 65536) /
                          65536.0f;
  Tensor t = Tensor::from(values, Shape{kRows, kColumns});
  t.set_requires_grad(true);
  return t;
}

/// Calls `body` for about `seconds`, and at least 5 times. Returns the median time of a call in microseconds.
double median_us(double seconds, const std::function<void()>& body) {
  using Clock = std::chrono::steady_clock;
  body();
  std::vector<double> times;
  for (const auto begin = Clock::now();
       times.size() < 5 || Clock::now() - begin < std::chrono::duration<double>(seconds);) {
    const auto start = Clock::now();
    body();
    times.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
  }
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
  return times[times.size() / 2];
}

/// Times one op and prints its line.
void answer(const std::string& name, double seconds) {
  const auto found = kCases.find(name);
  if (found == kCases.end()) fail(ExitCode::kUsage, "unknown op '{}': --list prints all", name);
  const Case& c = found->second;
  Inputs inputs;
  for (int i = 0; i < c.inputs; ++i) inputs.push_back(ramp(c.domain, i));
  const double forward = median_us(seconds, [&] {
    const NoGrad unrecorded;
    c.op(inputs);
  });
  const Tensor gradient = Tensor::ones(c.op(inputs).shape());
  const double both = median_us(seconds, [&] {
    for (const Tensor& t : inputs) t.set_grad({});
    backward(c.op(inputs), gradient);
  });
  std::printf("%.2f %.2f\n", forward, both);
  std::fflush(stdout);
}

int run(int argc, char** argv) {
  if (argc == 2 && std::string(argv[1]) == "--list") {
    for (const auto& [name, c] : kCases) std::printf("%s %d %s\n", name.c_str(), c.inputs, c.domain);
    return 0;
  }
  std::string name;
  double seconds = 0;
  while (std::cin >> name >> seconds) answer(name, seconds);
  return 0;
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) {
  try {
    return trireme::run(argc, argv);
  } catch (const trireme::Error& e) {
    std::fprintf(stderr, "bench_ops: %s\n", e.what());
    return static_cast<int>(e.code());
  }
}
