// Makes random calls of ops, most of which are wrong. Each must give a result or an error of one line, with
// any sanitizer.
//
// TRIREME_SEED=N begins with call N, and TRIREME_CALLS=N sets the number of calls.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <limits>
#include <random>

#include "core/autograd/autograd.h"
#include "core/ops/ops.h"
#include "core/tensor/observer.h"

namespace trireme {
namespace {

class Garbage {
 public:
  explicit Garbage(std::uint64_t seed) : random_(seed) {}

  std::int64_t below(std::int64_t count) {
    return static_cast<std::int64_t>(random_() % static_cast<std::uint64_t>(count));
  }
  bool coin() { return below(2) == 0; }
  /// Returns a number that is mostly small, and sometimes so large that a sum or product of two overflows.
  std::int64_t number() {
    if (below(12) > 0) return below(9) - 3;
    constexpr std::int64_t kFar[] = {77,
                                     std::int64_t{1} << 31,
                                     std::int64_t{1} << 32,
                                     std::int64_t{1} << 56,
                                     std::int64_t{1} << 62,
                                     std::numeric_limits<std::int64_t>::max()};
    const std::int64_t far = kFar[below(std::size(kFar))];
    return coin() ? far - below(2) : -far - below(2);
  }
  int dim() {
    if (below(40) > 0) return static_cast<int>(below(8)) - 4;
    return coin() ? std::numeric_limits<int>::max() : std::numeric_limits<int>::min();
  }
  std::vector<int> dims() {
    std::vector<int> all;
    for (std::int64_t n = below(3); n > 0; --n) all.push_back(dim());
    return all;
  }
  Shape shape() {
    Shape shape;
    for (std::int64_t n = below(5); n > 0; --n) shape.push_back(below(12) == 0 ? number() : below(5));
    return shape;
  }
  std::vector<std::int64_t> numbers() {
    std::vector<std::int64_t> all;
    for (std::int64_t n = below(5); n > 0; --n) all.push_back(number());
    return all;
  }

  Tensor tensor() {
    if (below(25) == 0) return {};
    Shape sizes;
    for (std::int64_t n = below(6); n > 0; --n) sizes.push_back(below(15) == 0 ? 0 : 1 + below(3));
    constexpr DType kRare[] = {DType::kFloat64, DType::kInt64,    DType::kUInt8,
                               DType::kBool,    DType::kBFloat16, DType::kFloat16};
    const DType dtype = below(4) > 0 ? DType::kFloat32 : kRare[below(6)];
    Tensor t = Tensor::empty(sizes, DType::kFloat32);
    for (std::int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = static_cast<float>(below(5)) - 1.5f;
    t = to_dtype(t, dtype);
    if (t.dim() > 1 && below(4) == 0) t = transpose(t, 0, -1);
    if (is_floating(dtype) && coin()) t = t.detach().set_requires_grad(true);
    return t;
  }
  /// Returns an image (1,1,H,W) into which windows fit.
  Tensor image() {
    if (below(6) == 0) return tensor();
    return Tensor::full({1, 1, 1 + below(4), 1 + below(4)}, real()).set_requires_grad(coin());
  }
  /// Returns a tensor of indices, some of which are out of range.
  Tensor index() {
    if (below(6) == 0) return tensor();
    Tensor t = Tensor::empty(below(3) == 0 ? Shape{2, 2} : Shape{1 + below(3)}, DType::kInt64);
    for (std::int64_t i = 0; i < t.numel(); ++i)
      t.data<std::int64_t>()[i] = below(8) == 0 ? number() : below(2);
    return t;
  }
  std::vector<Tensor> tensors() {
    std::vector<Tensor> all;
    const Tensor first = tensor();
    for (std::int64_t n = below(4); n > 0; --n) all.push_back(below(3) == 0 ? tensor() : first);
    return all;
  }
  double real() { return static_cast<double>(below(9)) / 4 - 1; }
  /// Returns a double that may be very large, infinite or NaN.
  double wild() {
    constexpr double kWild[] = {1e300, -1e300, INFINITY, NAN};
    return below(12) > 0 ? real() : below(3) > 0 ? static_cast<double>(number()) : kWild[below(4)];
  }

 private:
  std::mt19937_64 random_;
};

/// Refuses large allocations. A call that makes a tensor of 2^32 elements is correct, but would use up the
/// memory of the test.
class Stingy : public Observer {
 public:
  Stingy() { observer = this; }
  ~Stingy() override { observer = nullptr; }
  const KernelTable& kernels(Device device) override { return kernels_of(device); }
  void op_done(const char*, const Tensor&, std::span<const Tensor* const>) override {}
  void backward_begins(const char*) override {}
  void backward_ends() override {}
  void allocated(const void* memory, std::size_t bytes) override {
    if (bytes <= std::size_t{1} << 26) return;
    deallocate(kCpu, const_cast<void*>(memory), bytes);  // no storage will own and free it
    fail(ExitCode::kInternal, "allocate: the test gives no {} bytes", bytes);
  }
  void freed(const void*) override {}
};

using Call = Tensor (*)(Garbage&);

Tensor first_of(const std::vector<Tensor>& all) { return all.empty() ? Tensor() : all[0]; }

struct Named {
  const char* name;
  Call call;
};

#define TRIREME_CALL(name, ...)                              \
  {                                                          \
#name, [](Garbage & g) -> Tensor { return __VA_ARGS__; } \
  }

std::vector<Named> calls_of_elements() {
  return {
      TRIREME_CALL(relu, relu(g.tensor())),
      TRIREME_CALL(exp, exp(g.tensor())),
      TRIREME_CALL(gelu, gelu(g.tensor())),
      TRIREME_CALL(clamp, clamp(g.tensor(), g.real(), g.real())),
      TRIREME_CALL(add, add(g.tensor(), g.tensor())),
      TRIREME_CALL(mul, mul(g.tensor(), g.real())),
      TRIREME_CALL(div, div(g.tensor(), g.tensor())),
      TRIREME_CALL(pow, pow(g.tensor(), g.tensor())),
      TRIREME_CALL(remainder, remainder(g.tensor(), g.tensor())),
      TRIREME_CALL(lerp, lerp(g.tensor(), g.tensor(), g.tensor())),
      TRIREME_CALL(where, where(g.tensor(), g.tensor(), g.tensor())),
      TRIREME_CALL(masked_fill, masked_fill(g.tensor(), g.tensor(), g.real())),
      TRIREME_CALL(eq, eq(g.tensor(), g.tensor())),
      TRIREME_CALL(logical_and, logical_and(g.tensor(), g.tensor())),
      TRIREME_CALL(add_, add_(g.tensor(), g.tensor())),
      TRIREME_CALL(copy_, copy_(g.tensor(), g.tensor())),
      TRIREME_CALL(masked_fill_, masked_fill_(g.tensor(), g.tensor(), g.real())),
      TRIREME_CALL(sum, sum(g.tensor(), g.dims(), g.coin())),
      TRIREME_CALL(prod, prod(g.tensor(), g.dims(), g.coin())),
      TRIREME_CALL(amax, amax(g.tensor(), g.dims(), g.coin())),
      TRIREME_CALL(var, var(g.tensor(), g.dims(), g.real(), g.coin())),
      TRIREME_CALL(norm, norm(g.tensor(), g.real(), g.dims(), g.coin())),
      TRIREME_CALL(logsumexp, logsumexp(g.tensor(), g.dims(), g.coin())),
      TRIREME_CALL(argmax, argmax(g.tensor(), g.dim(), g.coin())),
      TRIREME_CALL(cumsum, cumsum(g.tensor(), g.dim())),
  };
}

std::vector<Named> calls_of_shapes() {
  return {
      TRIREME_CALL(reshape, reshape(g.tensor(), g.shape())),
      TRIREME_CALL(flatten, flatten(g.tensor(), g.dim(), g.dim())),
      TRIREME_CALL(permute, permute(g.tensor(), g.dims())),
      TRIREME_CALL(transpose, transpose(g.tensor(), g.dim(), g.dim())),
      TRIREME_CALL(expand, expand(g.tensor(), g.shape())),
      TRIREME_CALL(narrow, narrow(g.tensor(), g.dim(), g.number(), g.number())),
      TRIREME_CALL(squeeze, squeeze(g.tensor(), g.dim())),
      TRIREME_CALL(unsqueeze, unsqueeze(g.tensor(), g.dim())),
      TRIREME_CALL(cat, cat(g.tensors(), g.dim())),
      TRIREME_CALL(stack, stack(g.tensors(), g.dim())),
      TRIREME_CALL(select, select(g.tensor(), g.dim(), g.number())),
      TRIREME_CALL(split, first_of(split(g.tensor(), g.number(), g.dim()))),
      TRIREME_CALL(split, first_of(split(g.tensor(), g.numbers(), g.dim()))),
      TRIREME_CALL(chunk, first_of(chunk(g.tensor(), g.number(), g.dim()))),
      TRIREME_CALL(repeat, repeat(g.tensor(), g.shape())),
      TRIREME_CALL(flip, flip(g.tensor(), g.dims())),
      TRIREME_CALL(roll, roll(g.tensor(), g.number(), g.dim())),
      TRIREME_CALL(pad, pad(g.tensor(), g.numbers(), g.real())),
      TRIREME_CALL(unfold, unfold(g.tensor(), g.dim(), g.number(), g.number())),
      TRIREME_CALL(tril, tril(g.tensor(), g.number())),
      TRIREME_CALL(diagonal, diagonal(g.tensor(), g.number(), g.dim(), g.dim())),
      TRIREME_CALL(outer, outer(g.tensor(), g.tensor())),
      TRIREME_CALL(gather, gather(g.tensor(), g.dim(), g.index())),
      TRIREME_CALL(scatter, scatter(g.tensor(), g.dim(), g.index(), g.tensor())),
      TRIREME_CALL(scatter_add, scatter_add(g.tensor(), g.dim(), g.index(), g.tensor())),
      TRIREME_CALL(index_select, index_select(g.tensor(), g.dim(), g.index())),
      TRIREME_CALL(index_add, index_add(g.tensor(), g.dim(), g.index(), g.tensor())),
      TRIREME_CALL(take_along_dim, take_along_dim(g.tensor(), g.index(), g.dim())),
      TRIREME_CALL(embedding, embedding(g.tensor(), g.index(), g.number())),
      TRIREME_CALL(index, index(g.tensor(), {g.index(), g.index()})),
      TRIREME_CALL(index_put, index_put(g.tensor(), {g.index()}, g.tensor(), g.coin())),
      TRIREME_CALL(masked_select, masked_select(g.tensor(), g.tensor())),
      TRIREME_CALL(sort, sort(g.tensor(), g.dim(), g.coin()).values),
      TRIREME_CALL(topk, topk(g.tensor(), g.number(), g.dim()).values),
      TRIREME_CALL(max, max(g.tensor(), g.dim(), g.coin()).values),
      TRIREME_CALL(one_hot, one_hot(g.index(), g.number())),
  };
}

std::vector<Named> calls_of_images() {
  return {
      TRIREME_CALL(
          conv2d,
          conv2d(
              g.tensor(), g.tensor(), g.tensor(),
              {.stride = g.number(), .padding = g.number(), .groups = g.number(), .dilation = g.number()})),
      TRIREME_CALL(conv1d, conv1d(g.tensor(), g.tensor(), g.tensor(),
                                  {.stride = g.number(), .padding = g.number(), .dilation = g.number()})),
      TRIREME_CALL(conv2d of one channel,
                   conv2d(g.image(), g.image(), {},
                          {.stride = g.number(), .padding = g.number(), .dilation = g.number()})),
      TRIREME_CALL(
          conv_transpose2d,
          conv_transpose2d(
              g.tensor(), g.tensor(), g.tensor(),
              {.stride = g.number(), .padding = g.number(), .groups = g.number(), .dilation = g.number()})),
      TRIREME_CALL(conv_transpose2d of one channel, conv_transpose2d(g.image(), g.image(), {},
                                                                     {.stride = g.number(),
                                                                      .padding = g.number(),
                                                                      .output_padding = g.number(),
                                                                      .dilation = g.number()})),
      TRIREME_CALL(max_pool2d,
                   max_pool2d(g.image(), {g.number(), g.number(), g.number(), g.number(), g.coin()})),
      TRIREME_CALL(avg_pool2d, avg_pool2d(g.image(), {g.number(), g.number(), g.number()})),
      TRIREME_CALL(adaptive_avg_pool2d, adaptive_avg_pool2d(g.image(), g.number(), g.number())),
      TRIREME_CALL(adaptive_max_pool2d, adaptive_max_pool2d(g.image(), g.number(), g.number())),
      TRIREME_CALL(interpolate, interpolate(g.image(), {.size = g.numbers()})),
      TRIREME_CALL(interpolate, interpolate(g.image(), {.size = {g.number(), g.number()},
                                                        .mode = Interpolation::kBilinear,
                                                        .align_corners = g.coin()})),
      TRIREME_CALL(interpolate, interpolate(g.image(), {.scale_factor = {g.wild(), g.wild()}})),
  };
}

std::vector<Named> calls_of_layers() {
  return {
      TRIREME_CALL(bmm, bmm(g.tensor(), g.tensor())),
      TRIREME_CALL(matmul, matmul(g.tensor(), g.tensor())),
      TRIREME_CALL(linear, linear(g.tensor(), g.tensor(), g.tensor())),
      TRIREME_CALL(einsum, einsum(g.coin() ? "ij,jk->ik" : "i->", g.tensors())),
      TRIREME_CALL(batch_norm, batch_norm(g.tensor(), g.tensor(), g.tensor(), g.tensor(), {})),
      TRIREME_CALL(layer_norm, layer_norm(g.tensor(), g.tensor(), g.tensor())),
      TRIREME_CALL(rms_norm, rms_norm(g.tensor(), g.tensor())),
      TRIREME_CALL(group_norm, group_norm(g.tensor(), g.number(), g.tensor(), g.tensor())),
      TRIREME_CALL(softmax, softmax(g.tensor(), g.dim())),
      TRIREME_CALL(log_softmax, log_softmax(g.tensor(), g.dim())),
      TRIREME_CALL(
          cross_entropy,
          cross_entropy(g.tensor(), g.index(),
                        {.label_smoothing = g.real(), .weight = g.tensor(), .ignore_index = g.number()})),
      TRIREME_CALL(nll_loss, nll_loss(g.tensor(), g.index())),
      TRIREME_CALL(mse_loss, mse_loss(g.tensor(), g.tensor())),
      TRIREME_CALL(huber_loss, huber_loss(g.tensor(), g.tensor(), g.real())),
      TRIREME_CALL(bce_with_logits, bce_with_logits(g.tensor(), g.tensor())),
      TRIREME_CALL(dropout, dropout(g.tensor(), g.real(), random_key(1, 2, 3), g.number())),
      TRIREME_CALL(scaled_dot_product_attention,
                   scaled_dot_product_attention(g.tensor(), g.tensor(), g.tensor())),
      TRIREME_CALL(lstm_cell, lstm_cell(g.tensor(), g.tensor()).h),
      TRIREME_CALL(gru_cell, gru_cell(g.tensor(), g.tensor(), g.tensor())),
      TRIREME_CALL(arange, arange(g.wild(), g.wild() * 10, g.wild())),
      TRIREME_CALL(linspace, linspace(g.wild(), g.wild(), g.number())),
      TRIREME_CALL(eye, eye(g.number(), g.number())),
      TRIREME_CALL(uniform, uniform(g.shape(), random_key(1, 2, 3))),
      TRIREME_CALL(normal, normal(g.shape(), random_key(1, 2, 3))),
      TRIREME_CALL(full, Tensor::full(g.shape(), g.wild())),
      TRIREME_CALL(from, Tensor::from(std::vector<float>{1, 2}, g.shape())),
      TRIREME_CALL(empty_channels_last, Tensor::empty_channels_last(g.shape())),
      TRIREME_CALL(empty_strided, Tensor::empty_strided(g.shape(), g.shape())),
  };
}
#undef TRIREME_CALL

const std::vector<Named>& calls() {
  static const std::vector<Named> all = [] {
    std::vector<Named> joined;
    for (const auto& part : {calls_of_elements(), calls_of_shapes(), calls_of_images(), calls_of_layers()})
      joined.insert(joined.end(), part.begin(), part.end());
    return joined;
  }();
  return all;
}

void run_call(std::uint64_t seed) {
  Garbage g(seed);
  const Named& chosen = calls()[static_cast<std::size_t>(g.below(static_cast<std::int64_t>(calls().size())))];
  SCOPED_TRACE(std::string(chosen.name) + ", TRIREME_SEED=" + std::to_string(seed));
  const Stingy stingy;
  try {
    const Tensor out = chosen.call(g);
    const bool small = out.defined() && out.numel() < 1 << 20;  // an expanded view may be huge
    if (small && out.requires_grad() && out.numel() > 0) sum(out).backward();
  } catch (const Error& e) {
    const std::string text = e.what();
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    EXPECT_LT(text.size(), 400u) << text;
    EXPECT_NE(text.find(": "), std::string::npos) << "says not who failed: " << text;
  } catch (const std::exception& e) {
    ADD_FAILURE() << "not an Error: " << e.what();
  }
}

std::uint64_t setting(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

TEST(FuzzCalls, GiveAResultOrOneClearLine) {
  const std::uint64_t first = setting("TRIREME_SEED", std::random_device()());
  std::printf("TRIREME_SEED=%llu\n", static_cast<unsigned long long>(first));
  std::fflush(stdout);  // a crash would lose the output
  for (std::uint64_t i = 0; i < setting("TRIREME_CALLS", 20000) && !HasFailure(); ++i) run_call(first + i);
}

}  // namespace
}  // namespace trireme
