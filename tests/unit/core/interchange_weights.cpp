// Tests saving and loading tensors by name, and maps of names.
#include "core/interchange/weights.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "core/nn/layers.h"
#include "tests/support/checkpoint.h"
#include "tests/support/errors.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
using test::code_thrown_by;
using test::error_of;
using test::expect_holds;
using test::TemporaryDirectory;

class Weights : public ::testing::Test {
 protected:
  fs::path file(const char* name = "w.safetensors") const { return folder_.path() / name; }

 private:
  TemporaryDirectory folder_;
};

Tensor counted(const Shape& shape, DType dtype) {
  std::vector<double> values;
  for (std::int64_t i = 0; i < shape.numel(); ++i) values.push_back(static_cast<double>(i % 2) + i / 8.0);
  const Tensor t = Tensor::empty(shape, dtype);
  copy_into(t, Tensor::from(values, shape));
  return t;
}

std::vector<std::byte> bytes_of(const Tensor& t) {
  const auto* begin = static_cast<const std::byte*>(t.raw());
  return {begin, begin + static_cast<std::size_t>(t.numel()) * size_of(t.dtype())};
}

struct Net : nn::Module {
  nn::Linear first{3, 4}, second{4, 2, false};
  nn::BatchNorm2d norm{2};
  void visit(nn::Visitor& v) override {
    v.module("first", first);
    v.module("second", second);
    v.module("norm", norm);
  }
};

TEST_F(Weights, EveryTypeAndShapeComesBackBitForBit) {
  std::vector<NamedTensor> tensors;
#define TRIREME_ADD(enumerator, type, name)                                \
  tensors.push_back({name ".matrix", counted({3, 5}, DType::enumerator)}); \
  tensors.push_back({name ".empty", counted({0, 2}, DType::enumerator)});  \
  tensors.push_back({name ".scalar", counted({}, DType::enumerator)});
  TRIREME_DTYPES(TRIREME_ADD)
#undef TRIREME_ADD
  save_safetensors(file(), tensors, {{"format", "pt"}, {"made", "here"}});
  const LoadedTensors loaded = load_safetensors(file());
  EXPECT_EQ(loaded.metadata, (SafetensorsMetadata{{"format", "pt"}, {"made", "here"}}));
  ASSERT_EQ(loaded.tensors.size(), tensors.size());
  std::ranges::sort(tensors, {}, &NamedTensor::name);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_EQ(loaded.tensors[i].name, tensors[i].name);
    EXPECT_EQ(loaded.tensors[i].tensor.dtype(), tensors[i].tensor.dtype());
    EXPECT_EQ(loaded.tensors[i].tensor.shape(), tensors[i].tensor.shape());
    EXPECT_EQ(bytes_of(loaded.tensors[i].tensor), bytes_of(tensors[i].tensor)) << tensors[i].name;
  }
}

TEST_F(Weights, AViewIsWrittenInItsOwnOrder) {
  const Tensor t = Tensor::from<float>({1, 2, 3, 4, 5, 6}, {2, 3});
  save_safetensors(file(), {{"t", t.alias({3, 2}, {1, 3}, 0)}});
  EXPECT_EQ(load_safetensors(file()).tensors[0].tensor.to_vector<float>(),
            (std::vector<float>{1, 4, 2, 5, 3, 6}));
}

TEST_F(Weights, DamageIsNamedWithFileAndPlace) {
  save_safetensors(file(), {{"mask", Tensor::from<bool>({true, false}, {2})}});
  const auto size = fs::file_size(file());
  {
    std::fstream out(file(), std::ios::in | std::ios::out | std::ios::binary);
    out.seekp(static_cast<std::streamoff>(size) - 1);
    out.put('\7');
  }
  expect_holds(error_of([&] { load_safetensors(file()); }),
               {"w.safetensors'", "'mask'", std::to_string(size - 1).c_str(), "holds 7"});
  fs::resize_file(file(), size - 1);
  expect_holds(error_of([&] { load_safetensors(file()); }),
               {"w.safetensors'", std::to_string(size).c_str(), std::to_string(size - 1).c_str()});
  const NamedTensor deep{"deep", Tensor::zeros({1})};
  TensorSlot slot{"deep", DType::kFloat32, std::vector<std::int64_t>(9, 1),
                  static_cast<std::byte*>(deep.tensor.raw()), 4};
  write_safetensors(file(), {slot});
  expect_holds(error_of([&] { load_safetensors(file()); }), {"'deep' has 9 dimensions"});
}

TEST_F(Weights, AModuleComesBackByName) {
  Net from, to;
  from.norm.running_mean = counted({2}, DType::kFloat32);
  std::vector<NamedTensor> all = from.parameters();
  for (NamedTensor& b : from.buffers()) all.push_back(b);
  save_safetensors(file(), all);
  const auto version = to.first.weight.version();
  load_weights(to, file());
  EXPECT_EQ(to.first.weight.to_vector<float>(), from.first.weight.to_vector<float>());
  EXPECT_EQ(to.norm.running_mean.to_vector<float>(), from.norm.running_mean.to_vector<float>());
  EXPECT_GT(to.first.weight.version(), version);
  EXPECT_TRUE(to.first.weight.requires_grad());
}

TEST_F(Weights, OtherFloatingTypesAreConverted) {
  nn::Linear layer(4, 2, false);
  const Tensor half = counted({2, 4}, DType::kBFloat16);
  save_safetensors(file(), {{"weight", half}});
  load_weights(layer, file());
  EXPECT_EQ(layer.weight.to_vector<float>(), half.to_vector<float>());
}

TEST_F(Weights, WhatDoesNotFitIsListedAtOnceAndNothingIsWritten) {
  Net net;
  const auto before = net.norm.weight.to_vector<float>();
  save_safetensors(file(), {{"first.weight", counted({3, 4}, DType::kFloat32)},
                            {"first.bias", counted({4}, DType::kInt64)},
                            {"norm.weight", counted({2}, DType::kFloat32)},
                            {"norm.num_batches_tracked", counted({}, DType::kInt64)},
                            {"third.weight", counted({1}, DType::kFloat32)}});
  std::string what;
  EXPECT_EQ(code_thrown_by([&] { load_weights(net, file()); }, &what), ExitCode::kCheckpoint);
  expect_holds(what,
               {"w.safetensors'", "4 missing: second.weight, norm.bias, norm.running_mean, norm.running_var",
                "1 unexpected: third.weight",
                "2 that do not fit: first.weight is (4, 3), the file has [3, 4], first.bias is float32, "
                "the file has int64"});
  EXPECT_EQ(what.find('\n'), std::string::npos);
  EXPECT_EQ(net.norm.weight.to_vector<float>(), before);
  EXPECT_EQ(code_thrown_by([&] { load_weights(net, file("none")); }), ExitCode::kCheckpoint);
}

/// Adds a tensor "ids" of four numbers to a file, with a dtype that Trireme does not have.
void add_foreign_tensor(const std::filesystem::path& path, const std::string& dtype, std::size_t bytes) {
  std::ifstream in(path, std::ios::binary);
  std::string whole{std::istreambuf_iterator<char>(in), {}};
  in.close();
  std::uint64_t length = 0;
  std::memcpy(&length, whole.data(), 8);
  auto header = nlohmann::json::parse(whole.substr(8, length));
  const std::string data = whole.substr(8 + length) + std::string(bytes, '\1');
  header["ids"] = {{"dtype", dtype}, {"shape", {4}}, {"data_offsets", {data.size() - bytes, data.size()}}};
  const std::string text = header.dump();
  length = text.size();
  whole.assign(reinterpret_cast<const char*>(&length), 8);
  std::ofstream(path, std::ios::binary) << whole << text << data;
}

TEST_F(Weights, TensorsThatAreNotWantedMayHaveAnyDType) {
  for (const auto& [dtype, bytes] :
       {std::pair<const char*, std::size_t>{"I32", 16}, {"U16", 8}, {"F8_E4M3", 4}, {"I8", 4}, {"F4", 2}}) {
    nn::Linear layer(4, 2, false);
    save_safetensors(file(), {{"weight", counted({2, 4}, DType::kFloat32)}});
    add_foreign_tensor(file(), dtype, bytes);
    load_weights(layer, file(), WeightMap::parse("{*} {*}\n- ids\n", "m"));
    EXPECT_EQ(layer.weight.to_vector<float>(), counted({2, 4}, DType::kFloat32).to_vector<float>()) << dtype;
    // The error names such a tensor if it is needed, or if the map does not say that it is to be ignored.
    const auto error = [&](const char* map) {
      return error_of([&] { load_weights(layer, file(), WeightMap::parse(map, "m")); });
    };
    expect_holds(error("{*} {*}\n"), {"1 unexpected: ids"});
    expect_holds(error("weight ids\n- weight\n"), {"weight is float32, the file has ", dtype});
    EXPECT_EQ(code_thrown_by([&] { load_safetensors(file()); }), ExitCode::kCheckpoint)
        << "all are wanted here";
  }
}

TEST_F(Weights, ATorchvisionStateDictNeedsNoLineForItsBatchCounters) {
  Net net;
  std::vector<NamedTensor> all = net.parameters();
  for (NamedTensor& b : net.buffers()) all.push_back(b);
  all.push_back({"norm.num_batches_tracked", counted({}, DType::kInt64)});
  all.push_back({"num_batches_tracked", counted({}, DType::kInt64)});
  save_safetensors(file(), all);
  load_weights(net, file());
  all.push_back({"xnum_batches_tracked", counted({}, DType::kInt64)});
  save_safetensors(file(), all);
  expect_holds(error_of([&] { load_weights(net, file()); }), {"1 unexpected: xnum_batches_tracked"});
}

TEST_F(Weights, AMapRenamesTransposesAndCuts) {
  Net net;
  const Tensor fused = counted({3, 8}, DType::kFloat32);
  save_safetensors(file(), {{"h.0.c_attn", fused},
                            {"h.1.w", counted({2, 4}, DType::kFloat32)},
                            {"bn.weight", counted({2}, DType::kFloat32)},
                            {"bn.bias", counted({2}, DType::kFloat32)},
                            {"bn.num_batches_tracked", counted({}, DType::kInt64)}});
  load_weights(net, file(),
               WeightMap::parse("first.weight h.0.c_attn transpose part=2/2  # the later half\n"
                                "first.bias -\n"
                                "\n"
                                "second.{*} h.1.w\n"
                                "norm.running_{*} -\n"
                                "norm.{*} bn.{*}\n",
                                "m"));
  std::vector<float> expected;
  const auto all = fused.to_vector<float>();
  for (std::size_t out = 4; out < 8; ++out)
    for (std::size_t in = 0; in < 3; ++in) expected.push_back(all[in * 8 + out]);
  EXPECT_EQ(net.first.weight.to_vector<float>(), expected);
  EXPECT_EQ(net.norm.bias.to_vector<float>(), (std::vector<float>{0, 1.125}));
  const Tensor rows = Tensor::from<float>({1, 2, 3, 4, 5, 6}, {3, 2});
  EXPECT_EQ(stepped(rows, {{.part = 2, .parts = 3}}).to_vector<float>(), (std::vector<float>{3, 4}));
  EXPECT_EQ(stepped(rows, {{.part = 3, .parts = 3}, {}}).to_vector<float>(), (std::vector<float>{5, 6}));
}

TEST_F(Weights, AMapSaysWhatDoesNotFit) {
  Net net;
  save_safetensors(file(), {{"a", counted({4}, DType::kFloat32)}, {"b", counted({3, 4}, DType::kFloat32)}});
  const auto with = [&](const char* text) {
    return error_of([&] { load_weights(net, file(), WeightMap::parse(text, "m")); });
  };
  expect_holds(with("first.weight a transpose\nfirst.bias a part=1/3\nsecond.weight b transpose"),
               {"first.weight is (4, 3), the file has [4]: transpose needs two dimensions, (4) has 1",
                "(4) cannot be cut into 3 equal parts", "(2, 4), the file has [3, 4], which becomes (4, 3)",
                "norm.weight (no line of the map names it)"});
  expect_holds(with("first.weight x\n{*} -"), {"first.weight (from x)", "2 unexpected: a, b"});
}

TEST(WeightMapTest, NumbersAndTextAreCarriedOver) {
  const WeightMap map = WeightMap::parse(
      "h.{i}.{j}.w  x.{j}.{i}.w\n"
      "h.{i}.same.{i}  same.{i}\n"
      "{*}.b  body.{*}.bias\n"
      "{*}-{*}  twice.{*}\n"
      "{*a}-{*b}  {*b}.{*a}\n",
      "m");
  const auto of = [&](const char* name) {
    const auto source = map.source_of(name);
    return source ? source->name : "nothing";
  };
  EXPECT_EQ(of("h.12.3.w"), "x.3.12.w");
  EXPECT_EQ(of("h.1x.3.w"), "nothing");
  EXPECT_EQ(of("h..3.w"), "nothing");
  EXPECT_EQ(of("h.1.3.weight"), "nothing");
  EXPECT_EQ(of("h.12.same.12"), "same.12");
  EXPECT_EQ(of("h.12.same.1"), "nothing");
  EXPECT_EQ(of("layer1.0.b.b"), "body.layer1.0.b.bias");
  EXPECT_EQ(of("left-left"), "twice.left");
  EXPECT_EQ(of("left-right"), "right.left");
  EXPECT_FALSE(map.ignores("anything"));
}

TEST(WeightMapTest, AWrongLineIsNamed) {
  const auto wrong = [](const char* text) {
    std::string what;
    EXPECT_EQ(code_thrown_by([&] { WeightMap::parse(text, "names.map"); }, &what), ExitCode::kUsage);
    return what;
  };
  expect_holds(wrong("a b\nc\n"), {"names.map:2: 'c' stands alone"});
  expect_holds(wrong("a b turn"), {"names.map:1: 'turn': known are transpose and part=K/N"});
  for (const char* part : {"a b part=0/3", "a b part=4/3", "a b part=1/3x", "a b part=1", "a b part=/3"})
    expect_holds(wrong(part), {"part=K/N with K from 1 to N"});
  expect_holds(wrong("a.{i} b.{j}"), {"names.map:1: {j} stands on their side only"});
  expect_holds(wrong("a.{i b"), {"names.map:1:", "write {i}"});
  expect_holds(wrong("a.{} b"), {"write {i}"});
  expect_holds(wrong("a.{1} b"), {"write {i}"});
  expect_holds(wrong("a.{\xc3\xa9} b"), {"write {i}"});
  expect_holds(wrong("a} b"), {"a } without its {"});
  expect_holds(wrong("a - transpose"), {"nothing can be done to a tensor that is not used"});
  expect_holds(error_of([] { WeightMap::read("/nowhere/map"); }), {"/nowhere/map", "cannot read"});
  expect_holds(error_of([] { WeightMap::read("/"); }), {"cannot read"});
}

}  // namespace
}  // namespace trireme
