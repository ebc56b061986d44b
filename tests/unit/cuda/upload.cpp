// Tests copies to an emulated GPU that the host does not wait for, and copies that other GPU work does not
// wait for.
#include <gtest/gtest.h>

#include <numeric>
#include <thread>

#include "core/data/loader.h"
#include "core/ops/ops.h"
#include "kernels/cuda/memory.h"
#include "tests/support/cuda_emulator/emulator.h"
#include "tests/support/errors.h"

namespace trireme {
namespace {

constexpr Device kCuda{DeviceType::kCuda, 0};

TEST(CudaUpload, NobodyWaitsAndBuffersComeBack) {
  using namespace cuda;
  const Stream here = stream();
  synchronize(here);
  Scratch device(1 << 20);
  std::vector<int> values(1000), back(1000);
  const auto round = [&] {
    const std::size_t before = emulator::pinned_mallocs();
    for (int k = 0; k < 5; ++k) {
      std::fill(values.begin(), values.end(), k);
      upload(device.as<int>() + k * 1000, values.data(), values.size() * sizeof(int));
    }
    std::fill(values.begin(), values.end(), -1);  // must not change the copy
    EXPECT_GE(emulator::pending(), 1u);           // some work has run, because uploads query events
    return emulator::pinned_mallocs() - before;
  };
  round();
  for (int k = 0; k < 5; ++k) {
    copy_to_host(back.data(), device.as<int>() + k * 1000, back.size() * sizeof(int), here);
    EXPECT_EQ(back, std::vector<int>(1000, k));
  }
  EXPECT_EQ(round(), 0u) << "buffers are used again";
  synchronize(here);
}

TEST(CudaUpload, ArrivesBesideTheWorkOfTheDevice) {
  const Tensor before = add(to_device(Tensor::ones({5}), kCuda), 1.0);
  const std::size_t waits = cuda::emulator::waits();
  std::vector<float> host{1, 2, 3, 4, 5};
  std::unique_ptr<Upload> upload;
  std::thread([&] { upload = std::make_unique<Upload>(kCuda, host.data(), 5 * sizeof(float)); }).join();
  host.assign(5, 0);  // allowed, because the copy has read it
  EXPECT_GE(cuda::emulator::pending(), 1u) << "nobody waits";
  const Tensor there = Tensor::empty({5}, DType::kFloat32, kCuda);
  upload->finish(there.raw());
  const Tensor after = add(there, before);
  EXPECT_EQ(cuda::emulator::waits(), waits);
  EXPECT_EQ(after.to_vector<float>(), (std::vector<float>{3, 4, 5, 6, 7}));
}

TEST(CudaUpload, ItsMemoryIsUsedAgainBehindTheDevicesCopy) {
  std::vector<float> host(1000);
  const Tensor first = Tensor::empty({1000}, DType::kFloat32, kCuda), last = Tensor::empty_like(first);
  for (int round = 0; round < 20; ++round) {
    std::iota(host.begin(), host.end(), static_cast<float>(round));
    Upload(kCuda, host.data(), 4000);  // is destroyed before it is used
    Upload upload(kCuda, host.data(), 4000);
    upload.finish(round == 0 ? first.raw() : last.raw());
  }
  EXPECT_EQ(first.to_vector<float>()[999], 999);
  EXPECT_EQ(last.to_vector<float>()[999], 999 + 19);
}

class Numbers final : public ImageDataset {
 public:
  std::int64_t size() const override { return 50; }
  SampleShape sample_shape() const override { return {2, 3, 3}; }
  std::int64_t classes() const override { return 7; }
  void get(std::int64_t index, float* x, std::int64_t* y) const override {
    if (index == 41) fail(ExitCode::kData, "sample 41 is broken");
    for (int i = 0; i < 18; ++i) x[i] = static_cast<float>(index * 100 + i);
    *y = index % 7;
  }
};

TEST(CudaUpload, TheLoadersBatchesAreThoseOfTheCpu) {
  const auto batches = [](Device device, int workers) {
    Loader loader(std::make_shared<Numbers>(), Sampler(0, 50, false), {.workers = workers, .device = device},
                  [at = std::int64_t{0}]() mutable -> std::optional<Request> {
                    at += 8;
                    return Request{0, at - 8, at == 24 ? 0 : 8};  // one copy is empty
                  });
    std::vector<Tensor> fields;
    EXPECT_THROW(
        for (;;) {
          const Batch batch = loader.next().value();
          EXPECT_EQ(batch.x.device(), device);
          fields.push_back(mul(batch.x, 2.0));
          fields.push_back(batch.y);
        },
        Error);
    return fields;
  };
  const std::vector<Tensor> here = batches(kCpu, 1);
  ASSERT_EQ(here.size(), 10u);
  for (const int workers : {0, 1, 3}) {
    const std::vector<Tensor> there = batches(kCuda, workers);
    ASSERT_EQ(there.size(), here.size());
    for (std::size_t i = 0; i < here.size(); ++i) {
      EXPECT_EQ(there[i].to_vector<float>(), here[i].to_vector<float>()) << i << ", " << workers;
      EXPECT_EQ(there[i].strides(), here[i].strides());
    }
  }
}

}  // namespace
}  // namespace trireme
