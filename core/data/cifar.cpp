#include "core/data/cifar.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "core/data/byte_source.h"
#include "kernels/error.h"

namespace trireme {
namespace {

constexpr std::int64_t kClasses = 10;
constexpr SampleShape kShape{3, 32, 32};
constexpr std::size_t kPlane = 32 * 32, kPixels = 3 * kPlane, kRecord = 1 + kPixels;
constexpr const char* kAdvice = "unpack cifar-10-binary.tar.gz and give the directory with --data cifar:DIR";

/// Appends the records of one file, turning planes into channels-last pixels.
void append(ByteImages& images, const std::string& path) {
  const std::vector<std::uint8_t> bytes = read_file(path, kAdvice);
  if (bytes.empty() || bytes.size() % kRecord != 0)
    fail(ExitCode::kData,
         "{}: holds {} bytes, which is not a whole number of records of {} bytes; copy or download it "
         "again",
         path, bytes.size(), kRecord);
  std::vector<std::uint8_t> labels;
  const std::size_t start = images.pixels.size();
  images.pixels.resize(start + bytes.size() / kRecord * kPixels);
  std::uint8_t* to = images.pixels.data() + start;
  for (std::size_t first = 0; first < bytes.size(); first += kRecord) {
    labels.push_back(bytes[first]);
    const std::uint8_t* planes = bytes.data() + first + 1;
    for (std::size_t i = 0; i < kPlane; ++i)
      for (std::size_t c = 0; c < 3; ++c) *to++ = planes[c * kPlane + i];
  }
  check_labels(labels, kClasses, path);
  images.labels.insert(images.labels.end(), labels.begin(), labels.end());
}

ByteImages load(const std::filesystem::path& directory, Split split) {
  ByteImages images;
  images.shape = kShape;
  if (split == Split::kTest) {
    append(images, (directory / "test_batch.bin").string());
  } else {
    for (int i = 1; i <= 5; ++i) append(images, (directory / fmt::format("data_batch_{}.bin", i)).string());
  }
  return images;
}

}  // namespace

std::unique_ptr<CifarDataset> CifarDataset::open(const std::string& directory, Split split) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(directory, ignored))
    fail(ExitCode::kData, "{}: no such directory; {}", directory, kAdvice);
  const std::filesystem::path inner = std::filesystem::path(directory) / "cifar-10-batches-bin";
  const std::filesystem::path home =
      std::filesystem::is_directory(inner, ignored) ? inner : std::filesystem::path(directory);
  ByteImages images = load(home, split);
  Normalization normalization =
      measure(split == Split::kTrain ? images.pixels : load(home, Split::kTrain).pixels, 3);
  return std::unique_ptr<CifarDataset>(
      new CifarDataset(std::move(images), kClasses, std::move(normalization)));
}

}  // namespace trireme
