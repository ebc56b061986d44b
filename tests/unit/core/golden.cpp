// Compares every op, layer and optimizer with PyTorch. tests/golden/make.py wrote PyTorch's results to
// tests/golden/*.safetensors.
//
// A file's metadata lists its cases: the op, its arguments, the memory layout of each input, and how many
// derivatives are stored. "above" has the gradients of the outputs if these are special. Tensors are
// case/in0, case/out0, case/grad0 (the derivative of a weighted sum of all outputs by input 0) and
// case/gradgrad0 (that of a weighted sum of all gradients).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <set>

#include "core/autograd/autograd.h"
#include "core/interchange/weights.h"
#include "tests/golden/layers.h"
#include "tests/golden/ops.h"
#include "tests/support/op_table.h"
#include "tests/support/source_dir.h"

namespace trireme::test {
namespace {

/// Ops without a golden case, with the reason.
const std::map<std::string, std::string> kExceptions = {
    {"dropout(Tensor, double, RandomKey, std::int64_t)", "random: the numbers are Trireme's own"},
    {"uniform(Shape, RandomKey, double, double, DType)", "random: the numbers are Trireme's own"},
    {"normal(Shape, RandomKey, double, double, DType)", "random: the numbers are Trireme's own"},
    {"to(Tensor, Device)", "moves memory and computes nothing"},
};

struct GoldenFile {
  std::map<std::string, Tensor> tensors;
  Json cases;
};

GoldenFile read_golden(const std::string& path) {
  GoldenFile file;
  const LoadedTensors loaded = load_safetensors(path);
  for (const NamedTensor& one : loaded.tensors) file.tensors[one.name] = one.tensor;
  file.cases = Json::parse(loaded.metadata.at("cases"));
  return file;
}

std::vector<std::string> families() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(source_dir() + "/tests/golden"))
    if (entry.path().extension() == ".safetensors") names.push_back(entry.path().stem());
  std::sort(names.begin(), names.end());
  return names;
}

GoldenFile family(const std::string& name) {
  return read_golden(source_dir() + "/tests/golden/" + name + ".safetensors");
}

const Call* find_call(const Json& one) {
  const std::string op = one.at("op");
  for (const auto* table : {&kOps, &kLayers})
    if (const auto found = table->find(op); found != table->end()) return &found->second;
  return nullptr;
}

/// Returns a copy of t in another memory layout. Unused elements between are NaN, or 99 if not floating
/// point.
Tensor laid_out(const Tensor& t, const std::string& layout) {
  if (layout.empty()) return t.clone();
  const Shape& shape = t.shape();
  Shape memory, strides = shape;
  if (layout == "transposed") {
    for (int d = shape.size() - 1; d >= 0; --d) memory.push_back(shape[d]);
    for (int d = 0; d < shape.size(); ++d) strides[d] = contiguous_strides(memory)[shape.size() - 1 - d];
  } else if (layout == "strided") {
    for (std::int64_t size : shape) memory.push_back(2 * size + 1);
    strides = contiguous_strides(memory);
    for (int d = 0; d < shape.size(); ++d) strides[d] *= 2;
  } else if (layout == "channels_last") {
    memory = shape;
    strides = channels_last_strides(shape);
  } else if (layout == "expanded") {  // expanded along the first dimension, whose slices are equal
    Tensor first = narrow(t, 0, 0, 1).clone();
    strides = contiguous_strides(first.shape());
    strides[0] = 0;
    return first.alias(shape, strides, first.offset());
  } else {
    fail(ExitCode::kInternal, "golden case: unknown layout '{}'", layout);
  }
  const Tensor out =
      Tensor::full(memory, is_floating(t.dtype()) ? std::nan("") : 99, t.dtype()).alias(shape, strides, 0);
  copy_into(out, t);
  return out;
}

DType as_run(DType stored, DType run) { return stored == DType::kFloat64 ? run : stored; }

Tensors inputs_of(const GoldenFile& file, const Json& one, DType run) {
  Tensors inputs;
  for (const Json& how : one.at("inputs")) {
    const Tensor stored =
        file.tensors.at(one.at("name").get<std::string>() + "/in" + std::to_string(inputs.size()));
    const DType dtype = as_run(stored.dtype(), run);
    inputs.push_back(laid_out(to_dtype(stored, dtype), how.value("layout", "")));
    if (is_floating(dtype) && how.value("grad", true) && one.at("derivatives") > 0)
      inputs.back().set_requires_grad(true);
  }
  return inputs;
}

/// Returns sum(t * weights) over all tensors that require a gradient. make.py uses the same weights. If
/// `above` is not empty, its numbers are used as weights in turn.
Tensor weighted(const Tensors& tensors, const std::vector<double>& above = {}) {
  Tensor total;
  for (std::size_t k = 0; k < tensors.size(); ++k) {
    const Tensor& t = tensors[k];
    if (!t.defined() || !t.requires_grad()) continue;
    std::vector<double> weights;
    for (std::int64_t i = 0; i < t.numel(); ++i)
      weights.push_back(
          above.empty() ? 0.5 + static_cast<double>((37 * i + 11 * static_cast<std::int64_t>(k)) % 101) / 101
                        : above[static_cast<std::size_t>(i) % above.size()]);
    const Tensor part = sum(mul(t, to_dtype(Tensor::from(weights, t.shape()), t.dtype())));
    total = total.defined() ? add(total, part) : part;
  }
  return total;
}

/// Returns a description of where `got` differs from the file's tensor, or "" if it does not.
std::string difference(const std::string& name, const Tensor& got, const GoldenFile& file, DType run) {
  const Tensor& wanted = file.tensors.at(name);
  const DType dtype = as_run(wanted.dtype(), run);
  if (got.defined() && (got.shape() != wanted.shape() || got.dtype() != dtype))
    return fmt::format("{} is {} {} for {} {}\n", name, name_of(got.dtype()), got.shape().to_string(),
                       name_of(dtype), wanted.shape().to_string());
  if (wanted.dtype() == DType::kInt64) {  // doubles cannot hold all of these numbers
    const auto exact = got.to_vector<std::int64_t>(), right = wanted.to_vector<std::int64_t>();
    for (std::size_t i = 0; i < right.size(); ++i)
      if (exact[i] != right[i]) return fmt::format("{}[{}] is {} for {}\n", name, i, exact[i], right[i]);
    return "";
  }
  const auto w = wanted.to_vector<double>();
  const auto g = got.defined() ? got.to_vector<double>() : std::vector<double>(w.size());
  double largest = 1;
  for (const double v : w)
    if (std::isfinite(v)) largest = std::max(largest, std::fabs(v));
  const double tolerance = !is_floating(dtype) ? 0 : dtype == DType::kFloat64 ? 1e-10 : 1e-5;
  // Second derivatives have much cancellation. In PyTorch's float32, those of attention have similar errors.
  const double absolute = (name.find("/gradgrad") == std::string::npos ? 0.1 : 1) * tolerance * largest;
  for (std::size_t i = 0; i < w.size(); ++i) {
    if (g[i] == w[i] || (std::isnan(g[i]) && std::isnan(w[i]))) continue;  // includes infinities
    if (!std::isfinite(w[i]) || !(std::fabs(g[i] - w[i]) <= tolerance * std::fabs(w[i]) + absolute))
      return fmt::format("{}[{}] is {} for {}\n", name, i, g[i], w[i]);
  }
  return "";
}

/// Returns the gradients of weighted(roots) for inputs that require one, and undefined tensors for others.
Tensors gradients_of(const Tensors& roots, const Tensors& inputs, bool create_graph,
                     const std::vector<double>& above = {}) {
  Tensors all(inputs.size()), wanted;
  for (const Tensor& in : inputs)
    if (in.requires_grad()) wanted.push_back(in);
  const Tensor total = weighted(roots, above);
  if (!total.defined()) return all;
  const Tensors found = grad(total, wanted, {}, {.create_graph = create_graph});
  for (std::size_t i = 0, next = 0; i < inputs.size(); ++i)
    if (inputs[i].requires_grad()) all[i] = found[next++];
  return all;
}

using Results = std::map<std::string, Tensor>;

/// Runs a case and returns its results by their names in the file. Undefined tensors mean that there is no
/// gradient.
Results results_of(const GoldenFile& file, const Json& one, DType run) {
  const std::string name = one.at("name");
  const int derivatives = one.at("derivatives");
  const Call* call = find_call(one);
  if (!call) fail(ExitCode::kInternal, "no table in tests/golden has the call {}", one.at("op").dump());
  const Tensors inputs = inputs_of(file, one, run);
  Results all;
  const Tensors outputs = (*call)(one.at("args"), inputs);
  for (std::size_t i = 0; i < outputs.size(); ++i) all[name + "/out" + std::to_string(i)] = outputs[i];
  if (derivatives == 0) return all;
  std::vector<double> above;
  for (const Json& number : one.value("above", Json::array()))
    above.push_back(decode<double>(number, inputs));
  const Tensors first = gradients_of(outputs, inputs, derivatives > 1, above);
  Tensors second(inputs.size());
  if (derivatives > 1) second = gradients_of(first, inputs, false);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs[i].requires_grad()) continue;
    all[name + "/grad" + std::to_string(i)] = first[i];
    if (derivatives > 1) all[name + "/gradgrad" + std::to_string(i)] = second[i];
  }
  return all;
}

/// Returns the names of a case's results in a file.
std::vector<std::string> stored_results(const GoldenFile& file, const Json& one) {
  const std::string prefix = one.at("name").get<std::string>() + "/";
  std::vector<std::string> names;
  for (auto at = file.tensors.lower_bound(prefix);
       at != file.tensors.end() && at->first.rfind(prefix, 0) == 0; ++at)
    if (at->first.rfind(prefix + "in", 0) != 0) names.push_back(at->first);
  return names;
}

/// Returns a line for each result of a case that differs.
std::string differences(const GoldenFile& file, const Json& one, DType run) {
  try {
    const Results results = results_of(file, one, run);
    std::string lines;
    for (const auto& [name, result] : results) lines += difference(name, result, file, run);
    for (const std::string& name : stored_results(file, one))
      if (!results.contains(name)) lines += name + " is missing\n";
    return lines;
  } catch (const std::exception& e) {
    return std::string("threw: ") + e.what() + "\n";
  }
}

class Golden : public ::testing::TestWithParam<std::string> {};

TEST_P(Golden, Float64) {
  const GoldenFile file = family(GetParam());
  for (const Json& one : file.cases) EXPECT_EQ(differences(file, one, DType::kFloat64), "") << one.dump();
}

TEST_P(Golden, Float32) {
  const GoldenFile file = family(GetParam());
  for (const Json& one : file.cases)
    if (one.value("float32", true)) {
      EXPECT_EQ(differences(file, one, DType::kFloat32), "") << one.dump();
    }
}

/// Tests that a case fails if any one number of a stored result is changed.
TEST_P(Golden, NoticesOneChangedNumber) {
  GoldenFile file = family(GetParam());
  for (const Json& one : file.cases) {
    const Results results = results_of(file, one, DType::kFloat64);
    for (const std::string& name : stored_results(file, one)) {
      const Tensor stored = file.tensors.at(name);
      if (stored.numel() == 0) continue;
      if (stored.dtype() == DType::kInt64) {
        auto whole = stored.to_vector<std::int64_t>();
        whole.back() ^= 1;
        file.tensors[name] = Tensor::from(whole, stored.shape());
        EXPECT_NE(difference(name, results.at(name), file, DType::kFloat64), "") << name;
        file.tensors[name] = stored;
        continue;
      }
      auto values = stored.to_vector<double>();
      double& last = values.back();
      last = !std::isfinite(last)          ? 7
             : is_floating(stored.dtype()) ? last + 1e-4 * (1 + std::fabs(last))
                                           : 1 - last;
      file.tensors[name] = to_dtype(Tensor::from(values, stored.shape()), stored.dtype());
      EXPECT_NE(difference(name, results.at(name), file, DType::kFloat64), "") << name;
      file.tensors[name] = stored;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, Golden, ::testing::ValuesIn(families()),
                         [](const auto& one) { return one.param; });

TEST(GoldenCases, CoverEveryOp) {
  std::set<std::string> tested, declared;
  for (const std::string& name : families())
    for (const Json& one : family(name).cases) tested.insert(one.at("op").get<std::string>());
  for (const std::string& op : declarations_in(op_headers())) {
    declared.insert(op);
    EXPECT_NE(tested.count(op), kExceptions.count(op))
        << op << (tested.count(op) ? " has a case and stands among the exceptions of" : " has no case in")
        << " tests/golden/make.py and tests/unit/core/golden.cpp";
  }
  for (const auto& [op, call] : kOps)
    EXPECT_TRUE(declared.count(op)) << op << " is in tests/golden/ops.h alone";
  for (const auto& [op, reason] : kExceptions)
    EXPECT_TRUE(declared.count(op)) << op << " is an exception alone";
  for (const auto& [layer, call] : kLayers) EXPECT_TRUE(tested.count(layer)) << layer << " has no case";
}

TEST(GoldenCases, AreManyAndOfEveryKind) {
  std::map<std::string, int> count;
  for (const std::string& name : families()) {
    const GoldenFile file = family(name);
    for (const Json& one : file.cases) {
      ++count["cases"];
      std::size_t i = 0;
      std::set<std::string> shapes, traits;
      for (const Json& how : one.at("inputs")) {
        const Shape& shape =
            file.tensors.at(one.at("name").get<std::string>() + "/in" + std::to_string(i++)).shape();
        traits.insert(how.value("layout", "row-major"));
        if (shape.numel() == 0) traits.insert("zero-size");
        if (shape.size() == 0) traits.insert("0-d");
        shapes.insert(shape.to_string());
      }
      for (const Json& argument : one.at("args"))
        if (argument.is_number_integer() && argument.get<int>() < 0) traits.insert("negative");
      if (name == "elementwise" && shapes.size() > 1) traits.insert("broadcast");
      traits.insert("derivatives " + one.at("derivatives").dump());
      for (const std::string& trait : traits) ++count[trait];
    }
  }
  EXPECT_GE(count["cases"], 400);
  EXPECT_GE(count["derivatives 2"], 250);
  for (const char* kind :
       {"transposed", "strided", "expanded", "channels_last", "zero-size", "0-d", "broadcast", "negative"})
    EXPECT_GE(count[kind], 10) << kind;
}

}  // namespace
}  // namespace trireme::test
