// CIFAR-10 in its binary version.
//
// A batch file is a row of records: one label byte, then 3072 bytes of pixels as three planes
// (red, green, blue) of 32 rows of 32.
#pragma once

#include <memory>
#include <string>

#include "core/data/byte_images.h"

namespace trireme {

/// Ten classes of 3x32x32 images: data_batch_1.bin ... data_batch_5.bin and test_batch.bin.
class CifarDataset final : public ByteImageDataset {
 public:
  /// `directory` holds the files, or a folder cifar-10-batches-bin that does. Normalizes either split by
  /// the mean and deviation of the training images. Fails with kData if a file is missing or wrong.
  static std::unique_ptr<CifarDataset> open(const std::string& directory, Split split);

 private:
  using ByteImageDataset::ByteImageDataset;
};

}  // namespace trireme
