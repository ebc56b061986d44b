// Compares cross entropy on the device with the CPU's, for rows at any address.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/ops/ops.h"
#include "kernels/cuda/runtime.h"
#include "kernels/table.h"
#include "tests/support/extreme_logits.h"

namespace trireme {
namespace {

constexpr Device kCuda{DeviceType::kCuda, 0};
constexpr DType kAll[] = {DType::kFloat32, DType::kFloat64, DType::kBFloat16, DType::kFloat16};
constexpr std::int64_t kWidths[] = {1, 2, 7, 8, 9, 31, 33, 255, 257, 1000, 2049};
constexpr double kUntouched = 77;

class CudaCrossEntropy : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda::device_count() == 0) GTEST_SKIP() << "no GPU in this machine";
  }
};

struct Case {
  DType dtype = DType::kFloat32;
  std::int64_t rows = 1, width = 1;
  std::int64_t offset = 0, gradient_offset = 0;  ///< offsets of logits and their gradient, in elements
  double smoothing = 0;
  std::string name() const {
    return fmt::format("{} of {} x {}, offsets {} and {}, smoothing {}", name_of(dtype), rows, width, offset,
                       gradient_offset, smoothing);
  }
};

/// Returns logit i, a multiple of 1/16, which all dtypes hold exactly.
double logit(std::int64_t i) {
  return static_cast<double>(philox({9}, 0, static_cast<std::uint64_t>(i))[0] % 193) / 16 - 6;
}

/// Returns rows of logits with NaN around them, which shows if a kernel reads other elements.
Tensor logits_of(const Case& c, Device device) {
  const std::int64_t count = c.rows * c.width;
  const Tensor memory = Tensor::full({c.offset + count + 16}, std::nan(""), DType::kFloat64);
  for (std::int64_t i = 0; i < count; ++i) memory.data<double>()[c.offset + i] = logit(i);
  return to_device(to_dtype(memory, c.dtype), device).alias({c.rows, c.width}, {c.width, 1}, c.offset);
}

struct Results {
  std::vector<double> losses, normalizers;
  std::vector<double> gradient;  ///< the gradient, and the memory around it
};

Results run(const Case& c, Device device) {
  const DType full = is_low_precision(c.dtype) ? DType::kFloat32 : c.dtype;
  const Tensor logits = logits_of(c, device);
  // Every element of a narrow row is the label of some row. Of wide rows, the first and the last elements
  // are.
  std::vector<std::int64_t> values;
  for (std::int64_t r = 0; r < c.rows; ++r)
    values.push_back(r == 0 ? c.width - 1 : c.width <= 40 ? r % c.width : (r - 1) * 131 % c.width);
  const Tensor labels = to_device(Tensor::from(values, {c.rows}), device);
  const Tensor dlosses = to_device(uniform({c.rows}, {3}, 0.5, 2, full), device);
  const Tensor losses = Tensor::empty({c.rows}, full, device),
               normalizers = Tensor::empty({c.rows, 2}, full, device);
  const Tensor memory = Tensor::full({c.gradient_offset + logits.numel() + 16}, kUntouched, c.dtype, device);
  const Tensor dx = memory.alias(logits.shape(), logits.strides(), c.gradient_offset);
  const KernelTable& table = kernels_of(device);
  table.cross_entropy_forward(losses.view(), normalizers.view(), logits.view(), labels.view(), c.smoothing);
  table.cross_entropy_backward(dx.view(), dlosses.view(), logits.view(), normalizers.view(), labels.view(),
                               c.smoothing);
  return {losses.to_vector<double>(), normalizers.to_vector<double>(), memory.to_vector<double>()};
}

void expect_near(const std::vector<double>& got, const std::vector<double>& wanted, double relative,
                 double absolute, const std::string& what) {
  ASSERT_EQ(got.size(), wanted.size()) << what;
  for (std::size_t i = 0; i < got.size(); ++i)
    ASSERT_LE(std::fabs(got[i] - wanted[i]), relative * std::fabs(wanted[i]) + absolute)
        << what << ", element " << i;
}

void compare(const Case& c) {
  SCOPED_TRACE(c.name());
  const Results got = run(c, kCuda), wanted = run(c, kCpu);
  const double unit = c.dtype == DType::kFloat64 ? 1e-14 : 1e-6;
  // A 16-bit number may be rounded in the other direction.
  const double step = c.dtype == DType::kBFloat16 ? 0x1p-7 : c.dtype == DType::kFloat16 ? 0x1p-10 : unit;
  expect_near(got.losses, wanted.losses, unit, unit, "loss");
  // The sum of a row is at least 1, and it is rounded before 1 is subtracted.
  expect_near(got.normalizers, wanted.normalizers, unit, unit, "normalizer");
  expect_near(got.gradient, wanted.gradient, step, unit, "gradient");
  for (std::size_t i = 0; i < got.gradient.size(); ++i) {
    const auto k = static_cast<std::int64_t>(i) - c.gradient_offset;
    if (k >= 0 && k < c.rows * c.width) continue;
    ASSERT_EQ(got.gradient[i], kUntouched) << "beside the gradient";
  }
}

TEST_F(CudaCrossEntropy, IsThatOfTheCpu) {
  for (const DType dtype : kAll)
    for (const std::int64_t width : kWidths)
      for (const double smoothing : {0.0, 0.1})
        compare({dtype, width <= 40 ? width + 2 : 9, width, 0, 0, smoothing});
}

TEST_F(CudaCrossEntropy, WhereverRowsBegin) {
  for (const DType dtype : kAll)
    for (const std::int64_t width : {1, 7, 8, 33, 257})
      for (const std::int64_t offset : {1, 2, 3, 5, 8})
        for (const std::int64_t gradient_offset : {0, 1, 6})
          compare({dtype, 3, width, offset, gradient_offset, 0.1});
}

TEST_F(CudaCrossEntropy, HasTheBitsOfItsWidthAlone) {
  for (const std::int64_t width : {9, 257, 1000}) {
    const Results wanted = run({DType::kFloat32, 60, width, 0, 0, 0.1}, kCuda);
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16})
      for (const std::int64_t offset : {0, 1, 3, 4}) {
        const Case c{dtype, 60, width, offset, 0, 0.1};
        SCOPED_TRACE(c.name());
        const Results got = run(c, kCuda);
        EXPECT_EQ(got.losses, wanted.losses);
        EXPECT_EQ(got.normalizers, wanted.normalizers);
        const Tensor gradient =
            Tensor::from(wanted.gradient, {static_cast<std::int64_t>(wanted.gradient.size())});
        EXPECT_EQ(got.gradient, to_dtype(to_dtype(gradient, DType::kFloat32), dtype).to_vector<double>())
            << "float32's, rounded once";
      }
  }
}

TEST_F(CudaCrossEntropy, OfExtremeLogits) {
  for (const DType dtype : kAll) {
    SCOPED_TRACE(name_of(dtype));
    test::expect_right_cross_entropy(kCuda, dtype);
  }
}

}  // namespace
}  // namespace trireme
