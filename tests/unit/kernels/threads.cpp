// Tests that kernels give the same bits for any number of threads, and elementwise loops and reductions with
// unusual strides.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "core/tensor/tensor.h"
#include "kernels/table.h"

namespace trireme {
namespace {

const KernelTable& cpu() { return kernels_of(kCpu); }

/// Returns numbers whose sum depends on the order of additions.
Tensor rough(const Shape& shape, std::uint64_t which, bool channels_last = false) {
  Tensor t = channels_last ? Tensor::empty_channels_last(shape) : Tensor::empty(shape);
  for (std::int64_t i = 0; i < t.numel(); ++i) {
    const auto bits = philox({which}, 0, static_cast<std::uint64_t>(i));
    t.data<float>()[i] = std::ldexp(to_unit_float(bits[0]) - 0.5f, static_cast<int>(bits[1] % 30) - 15);
  }
  return t;
}

struct Threaded {
  const char* name;
  std::function<std::vector<Tensor>()> run;
};

Tensor like(const Tensor& t) { return Tensor::empty_like(t); }

std::vector<Threaded> elementwise_kernels() {
  const Tensor a = rough({300, 517}, 1), b = rough({300, 517}, 2), bt = rough({517, 300}, 2);
  const Tensor turned = bt.alias({300, 517}, {1, 300}, 0);
  return {{"unary",
           [=] {
             const Tensor o = like(a);
             cpu().unary(UnaryOp::tanh, o.view(), a.view(), {});
             return std::vector{o};
           }},
          {"binary",
           [=] {
             const Tensor o = like(a);
             cpu().binary(BinaryOp::mul, o.view(), a.view(), turned.view());
             return std::vector{o};
           }},
          {"compare",
           [=] {
             const Tensor o = Tensor::empty(a.shape(), DType::kBool);
             cpu().compare(CompareOp::lt, o.view(), a.view(), b.view());
             return std::vector{o};
           }},
          {"copy",
           [=] {
             const Tensor o = Tensor::empty(a.shape(), DType::kFloat64);
             cpu().copy(o.view(), turned.view());
             return std::vector{o};
           }},
          {"fill",
           [=] {
             const Tensor o = like(a);
             cpu().fill(o.view(), 3);
             return std::vector{o};
           }},
          {"dropout",
           [=] {
             const Tensor o = like(a);
             cpu().dropout(o.view(), a.view(), 0.3, {5}, 7);
             return std::vector{o};
           }},
          {"uniform",
           [=] {
             const Tensor o = like(a);
             cpu().uniform(o.view(), {5}, 0, 1);
             return std::vector{o};
           }},
          {"sgd",
           [=] {
             const Tensor p = a.clone(), m = b.clone(), g = rough(a.shape(), 3);
             cpu().sgd({{{p.view(), g.view(), m.view()}}},
                       {.lr = 0.1, .momentum = 0.9, .weight_decay = 0.01, .nesterov = true});
             return std::vector{p, m};
           }},
          {"adamw", [=] {
             const Tensor p = a.clone(), m = b.clone(), v = Tensor::full(a.shape(), 2),
                          g = rough(a.shape(), 3);
             cpu().adamw({{{p.view(), g.view(), m.view(), v.view(), 3}}}, {});
             return std::vector{p, m, v};
           }}};
}

std::vector<Threaded> reducing_kernels() {
  std::vector<Threaded> all;
  for (const Shape& kept : {Shape{1, 1, 1}, Shape{40, 1, 1}, Shape{1, 50, 1}, Shape{1, 1, 60},
                            Shape{40, 1, 60}, Shape{40, 50, 1}})
    for (const ReduceOp op : {ReduceOp::kSum, ReduceOp::kMax})
      all.push_back({"reduce", [=] {
                       const Tensor o = Tensor::empty(kept);
                       cpu().reduce(op, o.view(), rough({40, 50, 60}, 4).view());
                       return std::vector{o};
                     }});
  all.push_back({"chunk_squares", [] {
                   const Tensor sums = Tensor::empty({squares_chunks(100000)}, DType::kFloat64);
                   cpu().chunk_squares(std::vector{rough({100000}, 5).view()},
                                       {sums.data<double>(), static_cast<std::size_t>(sums.numel())});
                   return std::vector{sums};
                 }});
  all.push_back({"log_softmax", [] {
                   const Tensor x = rough({500, 33}, 6), o = like(x);
                   cpu().log_softmax(o.view(), x.view());
                   return std::vector{o};
                 }});
  all.push_back({"cross_entropy", [] {
                   const Tensor x = rough({500, 33}, 6), dlosses = rough({500}, 7), dx = like(x);
                   const Tensor losses = Tensor::empty({500}), normalizers = Tensor::empty({500, 2}),
                                labels = Tensor::full({500}, 7, DType::kInt64);
                   cpu().cross_entropy_forward(losses.view(), normalizers.view(), x.view(), labels.view(),
                                               0.1);
                   cpu().cross_entropy_backward(dx.view(), dlosses.view(), x.view(), normalizers.view(),
                                                labels.view(), 0.1);
                   return std::vector{losses, normalizers, dx};
                 }});
  all.push_back(
      {"batch_norm_statistics", [] {
         const Tensor mean = Tensor::empty({17}), variance = Tensor::empty({17});
         cpu().batch_norm_statistics(mean.view(), variance.view(), rough({20, 17, 30, 31}, 7, true).view());
         return std::vector{mean, variance};
       }});
  all.push_back({"batch_norm_backward", [] {
                   const Tensor x = rough({20, 17, 30, 31}, 7, true), dy = rough(x.shape(), 8, true),
                                y = rough(x.shape(), 9, true);
                   const Tensor dx = like(x), dskip = like(x), dg = Tensor::empty({17}),
                                db = Tensor::empty({17}), c = Tensor::ones({17});
                   const View skip = dskip.view(), out = y.view();
                   cpu().batch_norm_backward(dx.view(), dg.view(), db.view(), &skip, dy.view(), x.view(),
                                             &out, c.view(), c.view(), c.view());
                   return std::vector{dx, dg, db, dskip};
                 }});
  return all;
}

std::vector<Threaded> layer_kernels() {
  std::vector<Threaded> all;
  all.push_back({"attention", [] {
                   const Tensor q = rough({3, 2, 150, 20}, 11), k = rough({3, 2, 600, 20}, 12),
                                v = rough({3, 2, 600, 20}, 13), dout = rough({3, 2, 150, 20}, 14);
                   const Tensor out = like(q), sums = Tensor::empty({3, 2, 150}), dq = like(q), dk = like(k),
                                dv = like(v);
                   const AttentionRule rule{.scale = 1e-3, .dropout_p = 0.2, .key = {5}};
                   cpu().attention_forward(out.view(), sums.view(), q.view(), k.view(), v.view(), nullptr,
                                           rule);
                   cpu().attention_backward(dq.view(), dk.view(), dv.view(), dout.view(), out.view(),
                                            sums.view(), q.view(), k.view(), v.view(), nullptr, rule);
                   return std::vector{out, sums, dq, dk, dv};
                 }});
  all.push_back({"recurrent cells", [] {
                   const Tensor gates = rough({70, 4 * 90}, 15), c = rough({70, 90}, 16), h = like(c),
                                next = like(c), dgates = like(gates), dc = like(c);
                   cpu().lstm_forward(h.view(), next.view(), gates.view(), c.view());
                   cpu().lstm_backward(dgates.view(), dc.view(), gates.view(), c.view(), c.view(), c.view());
                   const Tensor gi = rough({70, 3 * 90}, 17), gh = rough({70, 3 * 90}, 18), state = like(c),
                                dgi = like(gi), dgh = like(gh), dh = like(c);
                   cpu().gru_forward(state.view(), gi.view(), gh.view(), c.view());
                   cpu().gru_backward(dgi.view(), dgh.view(), dh.view(), gi.view(), gh.view(), c.view(),
                                      c.view());
                   return std::vector{h, next, dgates, dc, state, dgi, dgh, dh};
                 }});
  all.push_back({"resample", [] {
                   const Tensor x = rough({9, 5, 20, 20}, 10, true),
                                y = Tensor::empty_channels_last({9, 5, 30, 20}), dx = like(x);
                   Resampling rows, columns;
                   for (std::int64_t i = 0; i < 30; ++i)
                     rows.first.push_back(i / 2), rows.weight.push_back(0.3);
                   for (std::int64_t i = 0; i < 20; ++i)
                     columns.first.push_back(i), columns.weight.push_back(0);
                   cpu().resample_forward(y.view(), x.view(), rows, columns);
                   cpu().resample_backward(dx.view(), y.view(), rows, columns);
                   return std::vector{y, dx};
                 }});
  all.push_back({"pool", [] {
                   const Tensor x = rough({9, 5, 20, 20}, 10, true),
                                y = Tensor::empty_channels_last({9, 5, 10, 10}), dx = like(x);
                   const Tensor at = Tensor::empty_channels_last(y.shape(), DType::kInt64);
                   const View where = at.view();
                   const Window window{3, 3, 2, 2, 1, 1};
                   cpu().pool_forward(PoolOp::kMax, y.view(), &where, x.view(), window);
                   cpu().pool_backward(PoolOp::kMax, dx.view(), y.view(), &where, window);
                   return std::vector{y, at, dx};
                 }});
  return all;
}

void expect_same_bits(const std::vector<Threaded>& kernels) {
  const int before = threads();
  for (const Threaded& kernel : kernels) {
    set_threads(1);
    const auto wanted = kernel.run();
    for (const int count : {2, 3}) {
      set_threads(count);
      const auto got = kernel.run();
      for (std::size_t i = 0; i < got.size(); ++i)
        EXPECT_EQ(std::memcmp(got[i].raw(), wanted[i].raw(), got[i].impl()->storage->bytes), 0)
            << kernel.name << ", result " << i << ", " << count << " threads";
    }
  }
  set_threads(before);
}

TEST(Threads, ElementwiseKernelsGiveTheSameBits) { expect_same_bits(elementwise_kernels()); }
TEST(Threads, ReducingKernelsGiveTheSameBits) { expect_same_bits(reducing_kernels()); }

TEST(Threads, LayerKernelsGiveTheSameBits) { expect_same_bits(layer_kernels()); }

TEST(Threads, AtLeastOne) { EXPECT_THROW(set_threads(0), Error); }

TEST(Elementwise, WalksOddStrides) {
  // Test every combination of a dense, transposed, strided or broadcast second argument with a strided
  // result.
  const Tensor block = rough({20, 20}, 1), values = rough({20, 20}, 2);
  const auto view = [](const Tensor& t, const Shape& strides, std::int64_t offset) {
    return t.alias({4, 5}, strides, offset);
  };
  for (const Tensor& out :
       {view(block, {5, 1}, 0), view(block, {1, 4}, 0), view(block, {40, 3}, 7), view(block, {2, 50}, 1)})
    for (const Tensor& in : {view(values, {5, 1}, 3), view(values, {1, 4}, 0), view(values, {40, 3}, 7),
                             view(values, {0, 1}, 2), view(values, {1, 0}, 2), view(values, {0, 0}, 2)}) {
      cpu().binary(BinaryOp::sub, out.view(), in.view(), values.alias({4, 5}, {7, 2}, 5).view());
      for (std::int64_t i = 0; i < 4; ++i)
        for (std::int64_t k = 0; k < 5; ++k) {
          const auto at = [&](const Tensor& t) {
            return t.data<float>()[i * t.strides()[0] + k * t.strides()[1]];
          };
          ASSERT_EQ(at(out), at(in) - values.data<float>()[5 + 7 * i + 2 * k]);
        }
    }
}

TEST(Elementwise, NansGoThrough) {
  const float nan = std::nanf("");
  const Tensor x = Tensor::from(std::vector<float>{nan, 1, nan, -1}, {4}),
               y = Tensor::from(std::vector<float>{1, nan, nan, 2}, {4}), o = like(x);
  for (const BinaryOp op : {BinaryOp::maximum, BinaryOp::minimum}) {
    cpu().binary(op, o.view(), x.view(), y.view());
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(std::isnan(o.data<float>()[i]));
  }
  cpu().unary(UnaryOp::relu, o.view(), x.view(), {});
  EXPECT_TRUE(std::isnan(o.data<float>()[0]));
  EXPECT_EQ(o.data<float>()[3], 0);
  const Tensor largest = Tensor::empty({1});
  cpu().reduce(ReduceOp::kMax, largest.view(), x.view());
  EXPECT_TRUE(std::isnan(largest.item()));
}

TEST(Pool, LowestValuesHaveAPlace) {
  const float low = -std::numeric_limits<float>::infinity();
  const Tensor x = Tensor::full({1, 1, 2, 2}, low), y = Tensor::empty({1, 1, 1, 1}),
               at = Tensor::full({1, 1, 1, 1}, 99, DType::kInt64);
  const View where = at.view();
  cpu().pool_forward(PoolOp::kMax, y.view(), &where, x.view(), {2, 2, 2, 2, 0, 0});
  EXPECT_EQ(y.item(), low);
  EXPECT_EQ(at.item(), 0);
}

TEST(Random, UniformStaysInItsInterval) {
  const Tensor t = Tensor::empty({1 << 20});
  cpu().uniform(t.view(), {3}, 1, 1 + 4e-7);  // only 4 float32 numbers, so rounding could reach the end
  for (const float v : t.to_vector<float>()) ASSERT_TRUE(v >= 1 && v < 1 + 4e-7f) << v;
}

}  // namespace
}  // namespace trireme
