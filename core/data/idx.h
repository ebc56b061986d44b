// MNIST and its kin (Fashion-MNIST, KMNIST, QMNIST): the IDX file format.
//
// An IDX file is a big-endian 32-bit magic (0x0000TTRR: TT = 0x08 for unsigned bytes, RR = number of
// dimensions), one big-endian 32-bit size per dimension, and then the values, last dimension fastest.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/data/byte_images.h"

namespace trireme {

/// An IDX file of unsigned bytes.
struct IdxArray {
  std::vector<std::uint32_t> dims;   ///< all at least 1
  std::vector<std::uint8_t> values;  ///< exactly the product of dims
};

/// Decodes the bytes of an IDX file, plain or gzip, that must hold images (3 dimensions) or labels (1).
/// `name` is the file's name in errors. Allocates by what the file holds, never by what its header claims.
/// Fails with kData if anything is wrong with the bytes.
IdxArray decode_idx(std::span<const std::uint8_t> raw, const std::string& name, int rank);

/// Ten classes of grey images in one directory, each file plain or with .gz added:
/// train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte.
class IdxDataset final : public ByteImageDataset {
 public:
  /// Normalizes either split by the mean and deviation of the training images, which it reads for that.
  static std::unique_ptr<IdxDataset> open(const std::string& directory, Split split);
  /// Opens a data set whose normalization is known, so that the pixels need not be read to compute it:
  /// `open(dir, kTest, train->normalization())`.
  static std::unique_ptr<IdxDataset> open(const std::string& directory, Split split,
                                          Normalization normalization);

 private:
  using ByteImageDataset::ByteImageDataset;
};

}  // namespace trireme
