// The generator and discriminator of A. Radford, L. Metz, S. Chintala, "Unsupervised representation learning
// with deep convolutional generative adversarial networks", 2016, for images whose sides are multiples of 4.
#pragma once

#include <algorithm>
#include <vector>

#include "core/data/dataset.h"
#include "core/nn/layers.h"

namespace trireme {

/// Throws Error(kUsage) unless both sides of the images are multiples of 4.
inline void check_sides(const SampleShape& image) {
  if (image.height % 4 != 0 || image.width % 4 != 0)
    fail(ExitCode::kUsage,
         "train_gan: it needs images with sides that are multiples of 4, this data has {}x{}", image.height,
         image.width);
}

/// Scales a dataset's darkest and brightest values to -1 and 1, the range of the generator's images.
struct Contrast {
  explicit Contrast(const ImageDataset& images) {
    std::vector<float> image(static_cast<std::size_t>(images.sample_shape().elements()));
    std::int64_t label = 0;
    for (std::int64_t i = 0; i < std::min<std::int64_t>(images.size(), 256); ++i) {
      images.get(i, image.data(), &label);
      const auto [least, most] = std::ranges::minmax(image);
      low = std::min<double>(low, least);
      high = std::max<double>(high, most);
    }
  }
  Tensor operator()(const Tensor& x) const { return (x - low) * (2 / std::max(high - low, 1e-6)) - 1; }
  double low = 0, high = 0;
};

/// Initializes weights as in the paper: with normal numbers of standard deviation 0.02.
inline void init_gan(nn::Module& model) {
  for (const auto& [name, tensor] : model.parameters())
    if (tensor.dim() > 1) nn::init::normal_(tensor, 0, 0.02);
}

/// Makes images: noise (N,kLatent) -> images (N,C,H,W) with values from -1 to 1.
struct Generator : nn::Module {
  static constexpr std::int64_t kLatent = 64;

  explicit Generator(const SampleShape& image)
      : height(image.height / 4),
        width(image.width / 4),
        project(kLatent, 128 * height * width),
        grow(nn::BatchNorm2d(128, {.relu = true}),
             nn::ConvTranspose2d(128, 64, 4, {.stride = 2, .padding = 1}),
             nn::BatchNorm2d(64, {.relu = true}),
             nn::ConvTranspose2d(64, image.channels, 4, {.stride = 2, .padding = 1}), nn::Tanh()) {
    init_gan(*this);
  }
  Tensor forward(const Tensor& noise) override {
    return grow(reshape(project(noise), {noise.size(0), 128, height, width}));
  }
  void visit(nn::Visitor& v) override {
    v.module("project", project);
    v.module("grow", grow);
  }

  std::int64_t height, width;  ///< a quarter of the image's, because `grow` doubles the size twice
  nn::Linear project;
  nn::Sequential grow;
};

/// Tells real images from generated ones: images (N,C,H,W) -> logits (N,1), positive for real images.
struct Discriminator : nn::Module {
  explicit Discriminator(const SampleShape& image)
      : judge(nn::Conv2d(image.channels, 64, 4, {.stride = 2, .padding = 1}), nn::LeakyReLU(0.2),
              nn::Conv2d(64, 128, 4, {.stride = 2, .padding = 1}), nn::BatchNorm2d(128), nn::LeakyReLU(0.2),
              nn::Flatten(), nn::Linear(128 * (image.height / 4) * (image.width / 4), 1)) {
    init_gan(*this);
  }
  Tensor forward(const Tensor& image) override { return judge(image); }
  void visit(nn::Visitor& v) override { v.module("judge", judge); }

  nn::Sequential judge;
};

}  // namespace trireme
