// Measures the overhead of ops, with tensors of one element.
//
//   ninja -C build trireme_bench && build/tests/bench_tiny_ops
#include <benchmark/benchmark.h>

#include "core/autograd/autograd.h"
#include "core/ops/ops.h"

namespace trireme {
namespace {

constexpr int kChain = 100;

void add_unrecorded(benchmark::State& state) {
  const NoGrad off;
  const Tensor a = Tensor::ones({1}), b = Tensor::ones({1});
  for (auto _ : state) benchmark::DoNotOptimize(add(a, b));
}
BENCHMARK(add_unrecorded);

void add_recorded(benchmark::State& state) {
  Tensor a = Tensor::ones({1});
  const Tensor b = Tensor::ones({1});
  a.set_requires_grad(true);
  for (auto _ : state) benchmark::DoNotOptimize(add(a, b));
}
BENCHMARK(add_recorded);

/// Runs forward and backward of a chain of ops. Reports the time for one op.
void chain_forward_backward(benchmark::State& state) {
  Tensor a = Tensor::ones({1});
  const Tensor b = Tensor::ones({1});
  a.set_requires_grad(true);
  for (auto _ : state) {
    Tensor x = a;
    for (int i = 0; i < kChain; ++i) x = add(x, b);
    x.backward();
    a.set_grad({});
  }
  state.SetItemsProcessed(state.iterations() * kChain);
}
BENCHMARK(chain_forward_backward);

void mul_recorded(benchmark::State& state) {
  Tensor a = Tensor::ones({1});
  const Tensor b = Tensor::ones({1});
  a.set_requires_grad(true);
  for (auto _ : state) benchmark::DoNotOptimize(mul(a, b));
}
BENCHMARK(mul_recorded);

void relu_unrecorded(benchmark::State& state) {
  const NoGrad off;
  const Tensor a = Tensor::ones({1});
  for (auto _ : state) benchmark::DoNotOptimize(relu(a));
}
BENCHMARK(relu_unrecorded);

}  // namespace
}  // namespace trireme

BENCHMARK_MAIN();
