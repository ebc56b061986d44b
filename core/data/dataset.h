// Data sets: the one interface that the loader needs, and labelled images.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor/tensor.h"

namespace trireme {

/// The two parts of a data set.
enum class Split : std::uint8_t { kTrain, kTest };

/// One of the tensors that make up a sample; a batch has one more dimension in front.
struct SampleField {
  Shape shape;  ///< the shape for one sample, () for a single number
  DType dtype = DType::kFloat32;
  bool channels_last = false;  ///< a shape (C,H,W) is laid out (H,W,C)
};

/// Identifies a sample, with the values that random changes to it may depend on.
struct SampleId {
  std::int64_t index = 0;  ///< the index in the data set
  std::int64_t epoch = 0;
  std::uint64_t seed = 0;  ///< the job's seed
};

/// A fixed, finite list of samples, all of the same fields.
///
/// Thread-safety: every method may be called from any number of threads at once.
/// Determinism: read() gives the same bits for the same SampleId in every process that opened the same data.
class Dataset {
 public:
  virtual ~Dataset() = default;

  /// Returns the number of samples, which is at least 1.
  virtual std::int64_t size() const = 0;
  /// Returns the fields of a sample, at least one. By convention the model's input is first and the target
  /// second.
  virtual std::vector<SampleField> fields() const = 0;
  /// Writes each field of a sample, densely, to its place in `to`. Fails with kData if the sample cannot be
  /// read, with kInternal if the index is out of range.
  virtual void read(const SampleId& id, std::span<std::byte* const> to) const = 0;
  /// Returns the word for samples in reports.
  virtual std::string_view unit() const { return "samples"; }
};

/// The shape of one image, without the batch dimension.
struct SampleShape {
  std::int64_t channels = 0;
  std::int64_t height = 0;
  std::int64_t width = 0;

  std::int64_t elements() const { return channels * height * width; }
  bool operator==(const SampleShape&) const = default;
};

/// Labelled images: x (N,C,H,W) float32, channels last, and y (N) int64.
///
/// Layout: a sample is written channels last, (H,W,C) with C fastest. A batch of N samples laid end to
/// end is then a tensor of logical shape (N,C,H,W) with channels-last strides (H*W*C, 1, W*C, C).
class ImageDataset : public Dataset {
 public:
  virtual SampleShape sample_shape() const = 0;
  /// Labels lie in [0, classes()).
  virtual std::int64_t classes() const = 0;

  /// Writes sample `index` of [0, size()): sample_shape().elements() normalized floats to `x`, its label to
  /// `y`. Fails with kData if the sample cannot be read, with kInternal if `index` is out of range.
  virtual void get(std::int64_t index, float* x, std::int64_t* y) const = 0;

  std::vector<SampleField> fields() const final;
  void read(const SampleId& id, std::span<std::byte* const> to) const final;
  std::string_view unit() const override { return "images"; }
};

/// Opens what `--data` names:
///
///     idx:DIR                                  MNIST and its kin (core/data/idx.h)
///     cifar:DIR                                CIFAR-10 in its binary version (core/data/cifar.h)
///     synthetic[:C,H,W,classes,count]          made up, learnable (core/data/synthetic.h)
///
/// Fails with kUsage if `spec` cannot be understood, with kData if the data cannot be read.
std::unique_ptr<ImageDataset> open_dataset(const std::string& spec, Split split);

}  // namespace trireme
