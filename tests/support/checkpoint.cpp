#include "tests/support/checkpoint.h"

#include <unistd.h>

#include <chrono>
#include <cstring>
#include <random>

#include "distributed/comm/local.h"

namespace trireme::test {

namespace fs = std::filesystem;

void TensorSet::add(const std::string& name, DType dtype, std::vector<std::int64_t> shape,
                    std::uint64_t seed) {
  const auto bytes = static_cast<std::size_t>(bytes_of(dtype, shape));
  auto& data = memory.emplace_back(bytes);
  std::mt19937_64 random(seed);
  for (std::size_t at = 0; at < bytes; at += size_of(dtype))
    visit_dtype(dtype, [&]<class T>(T value) {
      if constexpr (std::is_floating_point_v<T>)
        value = static_cast<T>(static_cast<double>(random() % 20011) / 64 - 99);
      else
        value = static_cast<T>(random());
      std::memcpy(data.data() + at, &value, sizeof value);
    });
  slots.push_back({name, dtype, std::move(shape), data.data(), bytes});
}

TensorSet TensorSet::empty_copy() const {
  TensorSet copy;
  for (TensorSlot slot : slots) {
    slot.data = copy.memory.emplace_back(slot.bytes).data();
    copy.slots.push_back(std::move(slot));
  }
  return copy;
}

bool TensorSet::holds_the_same(const TensorSet& other) const { return memory == other.memory; }

TensorSet small_model(std::uint64_t seed) {
  TensorSet set;
  set.add("layer.weight", DType::kFloat32, {5, 7}, seed);
  set.add("layer.bias", DType::kFloat32, {7}, seed + 1);
  set.add("adam.moment", DType::kFloat64, {3, 2, 2}, seed + 2);
  set.add("adam.steps", DType::kInt64, {}, seed + 3);
  set.add("mask", DType::kBool, {11}, seed + 4);
  set.add("bytes", DType::kUInt8, {13}, seed + 5);
  set.add("nothing", DType::kFloat32, {4, 0}, seed + 6);
  return set;
}

JobState job_at(std::int64_t step) {
  return {.run_id = "run/1",
          .step = step,
          .shards = 8,
          .seed = 17,
          .global_batch = 64,
          .threads = 2,
          .dataset_size = 60000,
          .model = "mlp",
          .optimizer = "sgd",
          .build = "test",
          .job = "steps: 9",
          .data = "abcd"};
}

ExitCode code_thrown_by(const std::function<void()>& body, std::string* what) {
  try {
    body();
  } catch (const Error& error) {
    if (what) *what = error.what();
    return error.code();
  }
  return ExitCode::kDone;
}

void run_alone(const std::function<void(Communicator&)>& body) {
  run_local_ranks(1, std::chrono::seconds(60), body);
}

TemporaryDirectory::TemporaryDirectory() {
  std::string pattern = (fs::temp_directory_path() / "trireme-test-XXXXXX").string();
  if (!mkdtemp(pattern.data())) fail(ExitCode::kInternal, "cannot make a directory like {}", pattern);
  path_ = pattern;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

}  // namespace trireme::test
