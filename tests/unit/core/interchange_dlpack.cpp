// Tests memory that is shared with other libraries: who keeps it alive, and which arrays are refused.
#include "core/interchange/dlpack.h"

#include <gtest/gtest.h>

#include <array>
#include <numeric>

#include "core/autograd/autograd.h"
#include "core/ops/ops.h"
#include "core/optim/optimizer.h"
#include "tests/support/errors.h"

namespace trireme {
namespace {

using dlpack::from_dlpack;
using dlpack::Managed;
using dlpack::ManagedVersioned;
using dlpack::to_dlpack;
using dlpack::to_dlpack_unversioned;
using test::error_of;
using test::expect_holds;

/// An array of another library: 2 x 3 floats after a byte offset. Counts how often its deleter is called.
struct Foreign {
  std::array<float, 8> data{};
  std::array<std::int64_t, 2> shape{2, 3}, strides{3, 1};
  int given_back = 0;
  ManagedVersioned managed{{1, 1}, this, &give_back, 0, {}};

  Foreign() {
    std::iota(data.begin(), data.end(), 0.0f);
    managed.array = {data.data(), {1, 0}, 2, {2, 32, 1}, shape.data(), strides.data(), 2 * sizeof(float)};
  }
  static void give_back(ManagedVersioned* self) { ++static_cast<Foreign*>(self->context)->given_back; }
};

TEST(DLPack, ImportedMemoryIsSharedAndGivenBackOnce) {
  Foreign foreign;
  Tensor view;
  {
    const Tensor t = from_dlpack(&foreign.managed);
    EXPECT_EQ(t.raw(), foreign.data.data() + 2);
    EXPECT_EQ(t.shape(), (Shape{2, 3}));
    EXPECT_EQ(t.to_vector<float>(), (std::vector<float>{2, 3, 4, 5, 6, 7}));
    foreign.data[2] = 42;
    EXPECT_EQ(t.data<float>()[0], 42);
    add_(t, 1);
    EXPECT_EQ(foreign.data[7], 8);
    view = select(t, 0, 1);
  }
  EXPECT_EQ(foreign.given_back, 0) << "a view still looks into the memory";
  EXPECT_EQ(view.to_vector<float>(), (std::vector<float>{6, 7, 8}));
  view = Tensor();
  EXPECT_EQ(foreign.given_back, 1);
}

TEST(DLPack, ImportedMemoryLivesAsLongAsTheGraphThatSavedIt) {
  Foreign foreign;
  Tensor loss, weight = Tensor::ones({2, 3}).set_requires_grad(true);
  loss = sum(mul(from_dlpack(&foreign.managed), weight));
  EXPECT_EQ(foreign.given_back, 0);
  loss.backward();
  EXPECT_EQ(weight.grad().to_vector<float>(), (std::vector<float>{2, 3, 4, 5, 6, 7}));
  loss = Tensor();
  EXPECT_EQ(foreign.given_back, 1);
}

TEST(DLPack, ExportedMemoryOutlivesTheTensor) {
  Tensor t = Tensor::from<float>({1, 2, 3, 4, 5, 6}, {2, 3});
  const TensorImpl* impl = t.impl();
  const Ref<Storage> storage = t.impl()->storage;
  ManagedVersioned* out = to_dlpack(transpose(t, 0, 1));
  EXPECT_EQ(out->array.data, t.raw());
  EXPECT_EQ(out->version.major, 1u);
  EXPECT_EQ(out->flags, 0u);
  EXPECT_EQ(impl, t.impl());
  t = Tensor();
  EXPECT_EQ(storage->use_count(), 2u) << "ours and the exported one";
  EXPECT_EQ(static_cast<float*>(out->array.data)[5], 6);
  EXPECT_EQ(out->array.shape[0], 3);
  EXPECT_EQ(out->array.strides[0], 1);
  EXPECT_EQ(out->array.strides[1], 3);
  out->deleter(out);
  EXPECT_EQ(storage->use_count(), 1u);
}

TEST(DLPack, EveryTypeAndLayoutGoesRoundWithoutACopy) {
#define TRIREME_ROUND(enumerator, type, name)                                                  \
  {                                                                                            \
    const Tensor whole = Tensor::full({4, 5}, 1, DType::enumerator);                           \
    const Tensor part = transpose(narrow(whole, 1, 1, 3), 0, 1);                               \
    for (const bool versioned : {true, false}) {                                               \
      const Tensor back =                                                                      \
          versioned ? from_dlpack(to_dlpack(part)) : from_dlpack(to_dlpack_unversioned(part)); \
      EXPECT_EQ(back.raw(), part.raw()) << name;                                               \
      EXPECT_EQ(back.dtype(), part.dtype()) << name;                                           \
      EXPECT_EQ(back.shape(), part.shape()) << name;                                           \
      EXPECT_EQ(back.strides(), part.strides()) << name;                                       \
    }                                                                                          \
    EXPECT_EQ(whole.impl()->storage->use_count(), 2u) << name;                                 \
  }
  TRIREME_DTYPES(TRIREME_ROUND)
#undef TRIREME_ROUND
  EXPECT_EQ(from_dlpack(to_dlpack(Tensor::zeros({0, 3}))).shape(), (Shape{0, 3}));
  EXPECT_EQ(from_dlpack(to_dlpack(Tensor::scalar(7))).item(), 7);
}

TEST(DLPack, WithoutStridesElementsAreRowMajor) {
  Foreign foreign;
  foreign.managed.array.strides = nullptr;
  EXPECT_EQ(from_dlpack(&foreign.managed).strides(), (Shape{3, 1}));
}

TEST(DLPack, ReadOnlyMemoryIsReadOnly) {
  Foreign foreign;
  foreign.managed.flags = dlpack::kReadOnly;
  const Tensor t = from_dlpack(&foreign.managed);
  const auto before = foreign.data;
  for (const auto& write : std::vector<std::function<void()>>{
           [&] { add_(t, 1); }, [&] { mul_(select(t, 0, 0), 2); }, [&] { fill_(t, 0); },
           [&] {
             copy_(t, Tensor::zeros({2, 3}));
           },
           [&] {
             copy_into(t, Tensor::zeros({2, 3}));
           },
           [&] {
             optim::SGD({{{"w", t}}}, {.lr = 1});
           },
           [&] { to_dlpack_unversioned(t); }})
    expect_holds(error_of(write), {"read-only", "clone()"});
  EXPECT_EQ(foreign.data, before);
  EXPECT_EQ(add(t, 1).to_vector<float>()[0], 3);
  ManagedVersioned* again = to_dlpack(t);
  EXPECT_EQ(again->flags, dlpack::kReadOnly);
  again->deleter(again);
  add_(t.clone(), 1);
}

TEST(DLPack, SizesThatCannotBeAreRefused) {
  constexpr std::int64_t kHuge = std::int64_t{1} << 62;
  Foreign foreign;
  const auto refused = [&](std::array<std::int64_t, 2> shape, std::array<std::int64_t, 2> strides, bool dense,
                           const char* why) {
    foreign.shape = shape;
    foreign.strides = strides;
    foreign.managed.array.strides = dense ? nullptr : foreign.strides.data();
    expect_holds(error_of([&] { from_dlpack(&foreign.managed); }), {"from_dlpack: shape (", why});
  };
  refused({3, 2}, {kHuge, 1}, false, "reaches over more than any memory");
  refused({2, 2}, {kHuge, 1}, false, "reaches over more than any memory");  // overflows in bytes only
  refused({2, 2}, {kHuge / 4, kHuge / 4}, false, "reaches over more than any memory");
  refused({kHuge, 4}, {0, 0}, false, "has too many elements");
  refused({kHuge, 4}, {}, true, "has too many elements");
  EXPECT_EQ(foreign.given_back, 0);
}

TEST(DLPack, WhatIsRefusedStaysTheCallers) {
  const auto refused = [](auto change) {
    Foreign foreign;
    change(foreign.managed);
    const std::string what = error_of([&] { from_dlpack(&foreign.managed); });
    EXPECT_EQ(foreign.given_back, 0) << what;
    return what;
  };
  expect_holds(refused([](auto& m) { m.version.major = 2; }), {"version 2.1"});
  expect_holds(refused([](auto& m) { m.array.device = {7, 0}; }), {"device type 7"});
  expect_holds(refused([](auto& m) { m.array.device = {2, 0}; }), {"cuda"});
  expect_holds(refused([](auto& m) { m.array.type = {5, 64, 1}; }), {"code 5, 64 bits"});
  expect_holds(refused([](auto& m) { m.array.type.lanes = 4; }), {"4 lanes"});
  expect_holds(refused([](auto& m) { m.array.dims = 9; }), {"9 dimensions"});
  expect_holds(refused([](auto& m) { m.array.strides[0] = -3; }), {"run backwards"});
  expect_holds(refused([](auto& m) { m.array.shape[1] = -1; }), {"negative size"});
  expect_holds(refused([](auto& m) { m.array.byte_offset = 3; }), {"not aligned to 4 bytes"});
  expect_holds(refused([](auto& m) { m.array.data = nullptr; }), {"not aligned"});
  expect_holds(error_of([] { from_dlpack(static_cast<Managed*>(nullptr)); }), {"null"});
  expect_holds(error_of([] { to_dlpack(Tensor()); }), {"undefined"});
  expect_holds(error_of([] { to_dlpack(Tensor::ones({1}).set_requires_grad(true)); }), {"detach()"});
}

TEST(DLPack, WhatWritersAndReadersGetWrongDoesNotMatter) {
  const Tensor whole = Tensor::from(std::vector<float>{1, 2, 3, 4}, {4});
  ManagedVersioned* const out = to_dlpack(narrow(whole, 0, 2, 2));
  EXPECT_EQ(out->array.byte_offset, 0u);  // 0, because some readers ignore the offset
  EXPECT_EQ(*static_cast<const float*>(out->array.data), 3);
  out->deleter(out);
  Foreign foreign;
  foreign.shape = {1, 3};
  foreign.strides = {-7, 1};  // the stride of a dimension of size 1 does not matter
  Tensor in = from_dlpack(&foreign.managed);
  EXPECT_TRUE(in.is_contiguous());
  in = Tensor();
  foreign.shape = {0, 3};
  EXPECT_EQ(from_dlpack(&foreign.managed).numel(), 0);
}

}  // namespace
}  // namespace trireme
