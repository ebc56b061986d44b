#include "core/tensor/tensor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "core/ops/ops.h"
#include "tests/support/errors.h"

namespace trireme {
namespace {

using test::error_of;
using test::expect_holds;

Tensor counted(const Shape& shape) {
  std::vector<float> values(static_cast<std::size_t>(shape.numel()));
  std::iota(values.begin(), values.end(), 0.0f);
  return Tensor::from(values, shape);
}

TEST(Shape, KeepsUpToEightSizes) {
  Shape s{2, 3};
  s.insert(1, 7);
  EXPECT_EQ(s, (Shape{2, 7, 3}));
  s.erase(0);
  s.push_back(4);
  EXPECT_EQ(s, (Shape{7, 3, 4}));
  EXPECT_EQ(s.numel(), 84);
  EXPECT_EQ(s.to_string(), "(7, 3, 4)");
  EXPECT_EQ(Shape{}.to_string(), "()");
  EXPECT_EQ(Shape{}.numel(), 1);
  EXPECT_EQ((Shape{0, 5}).numel(), 0);
  EXPECT_FALSE((Shape{2}) == (Shape{2, 1}));
  expect_holds(error_of([] { Shape{1, 1, 1, 1, 1, 1, 1, 1, 1}; }), {"9", "8"});
  expect_holds(error_of([] { Shape::filled(8, 1).push_back(1); }), {"8"});
}

TEST(Shape, Broadcasts) {
  EXPECT_EQ(broadcast_shapes({2, 1, 4}, {3, 1}, "op"), (Shape{2, 3, 4}));
  EXPECT_EQ(broadcast_shapes({}, {2, 0}, "op"), (Shape{2, 0}));
  EXPECT_EQ(broadcast_shapes({1}, {0}, "op"), (Shape{0}));
  expect_holds(error_of([] {
                 broadcast_shapes({2, 3}, {2, 4}, "some_op");
               }),
               {"some_op", "(2, 3)", "(2, 4)", "3 and 4", "dimension 1"});
  expect_holds(error_of([] { broadcast_shapes({0}, {2}, "some_op"); }), {"(0)", "(2)"});
}

TEST(Shape, WrapsDimensions) {
  EXPECT_EQ(wrap_dim(-1, 3, "op"), 2);
  EXPECT_EQ(wrap_dim(-3, 3, "op"), 0);
  EXPECT_EQ(wrap_dim(0, 0, "op"), 0);
  EXPECT_EQ(wrap_dim(-1, 0, "op"), 0);
  expect_holds(error_of([] { wrap_dim(3, 3, "some_op"); }), {"some_op", "dimension 3", "-3 to 2"});
  expect_holds(error_of([] { wrap_dim(-4, 3, "some_op"); }), {"dimension -4"});
}

TEST(Shape, Strides) {
  EXPECT_EQ(contiguous_strides({2, 3, 4}), (Shape{12, 4, 1}));
  EXPECT_EQ(contiguous_strides({2, 0, 4}), (Shape{4, 4, 1}));
  EXPECT_EQ(channels_last_strides({2, 3, 4, 5}), (Shape{60, 1, 15, 3}));
  expect_holds(error_of([] { channels_last_strides({2, 3}); }), {"(2, 3)"});
}

TEST(Tensor, HandlesShareMemory) {
  const Tensor a = counted({2, 3}), b = a;
  a.data<float>()[4] = 40;
  EXPECT_EQ(b.data<float>()[4], 40);
  EXPECT_TRUE(a.is_same(b));
  EXPECT_FALSE(a.is_same(a.detach()));
  EXPECT_EQ(a.detach().raw(), a.raw());
  EXPECT_NE(a.clone().raw(), a.raw());
  EXPECT_FALSE(Tensor().defined());
}

TEST(Tensor, ReadsAndConverts) {
  EXPECT_EQ(Tensor::scalar(2.5).item(), 2.5);
  EXPECT_EQ(Tensor::scalar(7, DType::kUInt8).item(), 7);
  EXPECT_EQ(Tensor::full({1, 1}, 1, DType::kBool).item(), 1);
  expect_holds(error_of([] { Tensor::zeros({2}).item(); }), {"item", "(2)"});
  expect_holds(error_of([] { Tensor().item(); }), {"item", "undefined"});
  expect_holds(error_of([] { Tensor::zeros({2}).data<double>(); }), {"float32", "float64"});
  expect_holds(error_of([] { Tensor::from(std::vector<float>{1, 2}, {3}); }), {"2", "(3)"});
  expect_holds(error_of([] { Tensor::empty({1 << 20, 1 << 20, 1 << 20}); }), {"1048576", "too many"});
  expect_holds(error_of([] { Tensor::empty({2, -1}); }), {"(2, -1)"});
  EXPECT_EQ(Tensor::from(std::vector<double>{1.75, -2.5}, {2}).to_vector<std::int64_t>(),
            (std::vector<std::int64_t>{1, -2}));
  const DType all[] = {DType::kFloat32, DType::kFloat64, DType::kInt64, DType::kUInt8, DType::kBool};
  for (DType from : all)
    for (DType to : all) {
      const Tensor t = to_dtype(to_dtype(Tensor::from(std::vector<double>{0, 1, 1}, {3}), from), to);
      EXPECT_EQ(t.dtype(), to);
      EXPECT_EQ(t.to_vector<double>(), (std::vector<double>{0, 1, 1}));
    }
  const Tensor f = counted({2});
  EXPECT_TRUE(to_dtype(f, DType::kFloat32).is_same(f));
  EXPECT_EQ(to_dtype(Tensor::from(std::vector<float>{0.5f, 0}, {2}), DType::kBool).to_vector<double>(),
            (std::vector<double>{1, 0}));
}

TEST(Tensor, KnowsHowItLiesInMemory) {
  const Tensor rows = counted({2, 3, 4, 5}), images = Tensor::empty_channels_last({2, 3, 4, 5});
  EXPECT_TRUE(rows.is_contiguous() && rows.is_dense() && !rows.is_channels_last());
  EXPECT_TRUE(images.is_channels_last() && images.is_dense() && !images.is_contiguous());
  const Tensor turned = permute(rows, {3, 1, 0, 2});
  EXPECT_TRUE(turned.is_dense() && !turned.is_contiguous());
  for (const Tensor& part : {narrow(rows, 1, 0, 2), narrow(rows, 3, 1, 3), expand(counted({3, 1}), {3, 4})})
    EXPECT_FALSE(part.is_dense());
  EXPECT_TRUE(narrow(rows, 0, 1, 1).is_dense());  // the other dimensions are complete
  // With one channel or one pixel, a tensor is both row-major and channels-last.
  EXPECT_TRUE(Tensor::zeros({2, 1, 4, 5}).is_channels_last());
  EXPECT_TRUE(Tensor::zeros({2, 3, 1, 1}).is_channels_last());
  EXPECT_TRUE(Tensor::zeros({}).is_contiguous() && Tensor::zeros({}).is_dense());
  EXPECT_TRUE(transpose(Tensor::zeros({0, 3}), 0, 1).is_contiguous());
  // The stride of a dimension of size 1 does not matter.
  EXPECT_TRUE(rows.alias({4, 1}, {1, 77}, 0).is_contiguous());
}

TEST(Tensor, EmptyLikeKeepsADenseOrder) {
  const Tensor images = Tensor::empty_channels_last({2, 3, 4, 5});
  EXPECT_TRUE(Tensor::empty_like(images).is_channels_last());
  EXPECT_TRUE(Tensor::empty_like(narrow(images, 3, 0, 2)).is_contiguous());
}

TEST(Tensor, CopiesThroughAnyStrides) {
  const Tensor x = counted({3, 4});
  const Tensor y = transpose(x, 0, 1);
  EXPECT_EQ(y.to_vector<float>(), (std::vector<float>{0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11}));
  EXPECT_EQ(y.clone().strides(), y.strides());
  EXPECT_EQ(y.clone().to_vector<float>(), y.to_vector<float>());
  EXPECT_TRUE(y.row_major().is_contiguous());
  EXPECT_TRUE(x.row_major().is_same(x));
  const Tensor wide = Tensor::zeros({2, 3});
  copy_into(wide, counted({3}));
  EXPECT_EQ(wide.to_vector<float>(), (std::vector<float>{0, 1, 2, 0, 1, 2}));
  copy_into(wide, counted({2, 1}));
  EXPECT_EQ(wide.to_vector<float>(), (std::vector<float>{0, 0, 0, 1, 1, 1}));
  copy_into(narrow(wide, 1, 1, 1), Tensor::full({}, 9));
  EXPECT_EQ(wide.to_vector<float>(), (std::vector<float>{0, 9, 0, 1, 9, 1}));
  expect_holds(error_of([&] { copy_into(wide, counted({4})); }), {"copy", "(2, 3)", "(4)"});
  expect_holds(error_of([&] { copy_into(counted({3}), wide); }), {"copy", "(2, 3)", "(3)"});
}

TEST(Tensor, VersionsCountWritesForAllViews) {
  const Tensor t = counted({2, 2}), part = narrow(t, 0, 0, 1);
  EXPECT_EQ(t.version(), 0u);
  fill_(t, 1);
  mul_(part, 2.0);
  EXPECT_EQ(t.version(), 2u);
  EXPECT_EQ(part.version(), 2u);
  EXPECT_EQ(t.to_vector<float>(), (std::vector<float>{2, 2, 1, 1}));
  EXPECT_EQ(t.clone().version(), 0u);
}

TEST(Tensor, ReshapingIsAViewWhereItCanBe) {
  const Tensor x = counted({4, 2, 3});
  EXPECT_EQ(reshape(x, {8, 3}).raw(), x.raw());
  EXPECT_EQ(squeeze(unsqueeze(transpose(x, 0, 2), 1), 1).raw(), x.raw());
  EXPECT_EQ(reshape(transpose(x, 0, 1), {2, 4, 3, 1}).raw(), x.raw());
  EXPECT_NE(reshape(transpose(x, 0, 1), {24}).raw(), x.raw());
  EXPECT_EQ(flatten(x, 0, 1).raw(), x.raw());
}

}  // namespace
}  // namespace trireme
