// Compares values and gradients of every op of the op test table on the device with the CPU's. Runs on an
// emulated device, which crashes the program if host code touches device memory, and (as gpu_ops) on a real
// one.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/autograd/autograd.h"
#include "kernels/cuda/runtime.h"
#include "kernels/table.h"
#include "tests/support/op_table.h"

namespace trireme::test {
namespace {

constexpr Device kCuda{DeviceType::kCuda, 0};

Tensors inputs_of(const Case& c, DType dtype, bool gradients, Device device) {
  Tensors all;
  for (std::size_t i = 0; i < c.inputs.size(); ++i) {
    const Input& in = c.inputs[i];
    Array a(in.shape);
    for (std::int64_t k = 0; k < a.size(); ++k) {
      const double unit =
          std::fmod(0.377 + 0.61803398875 * static_cast<double>(k) + 0.2718 * static_cast<double>(i), 1.0);
      a[k] = in.kind == Kind::kLabel ? std::floor(unit * in.high) : in.low + (in.high - in.low) * unit;
    }
    const DType as = in.kind == Kind::kLabel ? DType::kInt64 : dtype;
    all.push_back(to_device(to_dtype(Tensor::from(a.values, a.shape), as), device));
    if (gradients && (in.kind == Kind::kValue || in.kind == Kind::kOptional))
      all.back().set_requires_grad(true);
  }
  return all;
}

void expect_near(const Tensor& got, const Tensor& wanted, double tolerance, const std::string& what) {
  ASSERT_EQ(got.defined(), wanted.defined()) << what;
  if (!got.defined()) return;
  ASSERT_EQ(got.shape(), wanted.shape()) << what;
  ASSERT_EQ(got.dtype(), wanted.dtype()) << what;
  const auto a = got.to_vector<double>(), b = wanted.to_vector<double>();
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i]))) continue;
    ASSERT_LE(std::fabs(a[i] - b[i]), tolerance * (1 + std::fabs(b[i]))) << what << ", element " << i;
  }
}

void compare(const OpRow& row, const Case& c, DType dtype) {
  const bool gradients = row.second != Second::kNone;
  const Tensors here = inputs_of(c, dtype, gradients, kCpu), there = inputs_of(c, dtype, gradients, kCuda);
  const Tensor wanted = c.call(here);
  const Tensor got = c.call(there);
  const double tolerance = dtype == DType::kFloat64 ? 1e-10 : row.float32_tolerance;
  expect_near(got, wanted, tolerance, "value");
  const bool takes_tensors =
      std::ranges::any_of(c.inputs, [](const Input& in) { return in.kind != Kind::kPlaceholder; });
  if (takes_tensors && row.name() != "to") {
    EXPECT_EQ(got.device(), kCuda);
  }
  if (!gradients || !wanted.requires_grad()) return;
  sum(square(wanted)).backward();
  sum(square(got)).backward();
  for (std::size_t i = 0; i < here.size(); ++i)
    expect_near(there[i].grad(), here[i].grad(), tolerance * 10, "gradient of input " + std::to_string(i));
}

TEST(CudaOps, AgreeWithTheCpu) {
  if (cuda::device_count() == 0) GTEST_SKIP() << "no GPU in this machine";
  for (const OpRow& row : op_table())
    for (const Case& c : row.cases)
      for (const DType dtype : {DType::kFloat64, DType::kFloat32}) {
        SCOPED_TRACE(row.declaration + ": " + c.label + " " + std::string(name_of(dtype)));
        try {
          compare(row, c, dtype);
        } catch (const std::exception& e) {
          ADD_FAILURE() << "threw: " << e.what();
        }
      }
}

/// Returns the value and all gradients of a case. With `recorded`, runs it twice in CUDA graphs: the second
/// run changes the graphs that the first one made.
std::vector<std::vector<double>> results_of(const OpRow& row, const Case& c, bool recorded) {
  std::vector<std::vector<double>> all;
  for (int round = 0; round < 2; ++round) {
    const Tensors inputs = inputs_of(c, DType::kFloat32, row.second != Second::kNone, kCuda);
    if (recorded) kernels_of(kCuda).begin_recording();
    const Tensor value = c.call(inputs);
    if (value.requires_grad()) sum(square(value)).backward();
    kernels_of(kCuda).end_recording();
    all.push_back(value.to_vector<double>());
    for (const Tensor& in : inputs)
      if (in.defined() && in.grad().defined()) all.push_back(in.grad().to_vector<double>());
  }
  return all;
}

TEST(CudaOps, HaveTheSameBitsInGraphs) {
  if (cuda::device_count() == 0) GTEST_SKIP() << "no GPU in this machine";
  for (const OpRow& row : op_table())
    for (const Case& c : row.cases) {
      SCOPED_TRACE(row.declaration + ": " + c.label);
      const auto plain = results_of(row, c, false), recorded = results_of(row, c, true);
      ASSERT_EQ(plain.size(), recorded.size());
      for (std::size_t i = 0; i < plain.size(); ++i) {
        ASSERT_EQ(plain[i].size(), recorded[i].size());
        for (std::size_t k = 0; k < plain[i].size(); ++k)
          ASSERT_TRUE(plain[i][k] == recorded[i][k] ||
                      (std::isnan(plain[i][k]) && std::isnan(recorded[i][k])))
              << "result " << i << ", element " << k << ": " << plain[i][k] << ", " << recorded[i][k];
      }
    }
}

}  // namespace
}  // namespace trireme::test
