#include "core/data/idx.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <system_error>
#include <utility>

#include "core/data/byte_source.h"
#include "kernels/error.h"

namespace trireme {
namespace {

constexpr std::int64_t kClasses = 10;
constexpr int kImageRank = 3, kLabelRank = 1;
constexpr const char* kAdvice =
    "install the Debian package dataset-fashion-mnist, or give the directory with --data idx:DIR";

/// Three 32-bit sizes multiply to less than 2^96.
using Wide = unsigned __int128;

std::uint32_t big_endian(const std::uint8_t* bytes) {
  return std::uint32_t{bytes[0]} << 24 | std::uint32_t{bytes[1]} << 16 | std::uint32_t{bytes[2]} << 8 |
         bytes[3];
}

std::string describe(const std::vector<std::uint32_t>& dims) {
  return dims.size() == kImageRank ? fmt::format("images of {}x{}", dims[1], dims[2]) : std::string("labels");
}

std::vector<std::uint32_t> read_header(ByteSource& source, const std::string& name, int rank) {
  std::array<std::uint8_t, 4 + 4 * kImageRank> header;
  const std::size_t size = 4 + 4 * static_cast<std::size_t>(rank);
  const std::size_t got = source.read(header.data(), size);
  if (got < size)
    fail(ExitCode::kData, "{}: holds {} bytes, fewer than the {} of an IDX header; copy or download it again",
         name, got, size);
  const std::uint32_t magic = big_endian(header.data());
  const std::uint32_t expected = 0x0800u | static_cast<std::uint32_t>(rank);
  if (magic != expected)
    fail(ExitCode::kData,
         "{}: its magic is 0x{:08x}, but an IDX file of {} has 0x{:08x}; check that it is the right "
         "file",
         name, magic, rank == kImageRank ? "images" : "labels", expected);
  std::vector<std::uint32_t> dims;
  for (int d = 0; d < rank; ++d) {
    dims.push_back(big_endian(header.data() + 4 + 4 * d));
    if (dims.back() == 0)
      fail(ExitCode::kData, "{}: dimension {} of {} is 0, but must be at least 1; copy or download it again",
           name, d, rank);
  }
  return dims;
}

/// Up to `expected` bytes of `source`. Grows as bytes arrive, so at most twice what is there.
std::vector<std::uint8_t> read_values(ByteSource& source, Wide expected) {
  std::vector<std::uint8_t> values;
  while (values.size() < expected) {
    const std::size_t done = values.size();
    const Wide next = std::max<Wide>(std::size_t{1} << 16, Wide{2} * done);
    const std::size_t target = static_cast<std::size_t>(std::min(next, expected));
    values.reserve(target);  // exactly, so that a finished array wastes nothing
    values.resize(target);
    const std::size_t got = source.read(values.data() + done, target - done);
    if (got < target - done) {
      values.resize(done + got);
      break;
    }
  }
  return values;
}

std::string find_file(const std::filesystem::path& directory, const std::string& name) {
  std::error_code ignored;
  const std::filesystem::path plain = directory / name, packed = directory / (name + ".gz");
  if (std::filesystem::exists(plain, ignored)) return plain.string();
  if (std::filesystem::exists(packed, ignored)) return packed.string();
  fail(ExitCode::kData, "{}: no such file, with or without .gz; {}", plain.string(), kAdvice);
}

std::string file_name(Split split, int rank) {
  return std::string(split == Split::kTrain ? "train" : "t10k") +
         (rank == kImageRank ? "-images-idx3-ubyte" : "-labels-idx1-ubyte");
}

/// One of the four files, decoded, and its path.
std::pair<IdxArray, std::string> load(const std::string& directory, Split split, int rank) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(directory, ignored))
    fail(ExitCode::kData, "{}: no such directory; {}", directory, kAdvice);
  std::string path = find_file(directory, file_name(split, rank));
  const std::vector<std::uint8_t> raw = read_file(path, kAdvice);
  return {decode_idx(raw, path, rank), std::move(path)};
}

ByteImages load_images(const std::string& directory, Split split) {
  auto [images, images_path] = load(directory, split, kImageRank);
  auto [labels, labels_path] = load(directory, split, kLabelRank);
  if (images.dims[0] != labels.dims[0])
    fail(ExitCode::kData, "{}: holds {} images, but {} holds {} labels; take both from the same data set",
         images_path, images.dims[0], labels_path, labels.dims[0]);
  check_labels(labels.values, kClasses, labels_path);
  return {{1, images.dims[1], images.dims[2]}, std::move(images.values), std::move(labels.values)};
}

void check_same_size(const SampleShape& test, const std::string& directory, const IdxArray& training,
                     const std::string& training_path) {
  const std::int64_t height = training.dims[1], width = training.dims[2];
  if (test.height == height && test.width == width) return;
  fail(ExitCode::kData,
       "{}: holds images of {}x{}, but {} holds images of {}x{}; take both from the same data set",
       find_file(directory, file_name(Split::kTest, kImageRank)), test.height, test.width, training_path,
       height, width);
}

}  // namespace

IdxArray decode_idx(std::span<const std::uint8_t> raw, const std::string& name, int rank) {
  TRIREME_CHECK(rank == kImageRank || rank == kLabelRank, "decode_idx: rank {} is neither 1 nor 3", rank);
  ByteSource source(raw, name);
  IdxArray array{read_header(source, name, rank), {}};
  Wide item = 1;
  for (int d = 1; d < rank; ++d) item *= array.dims[static_cast<std::size_t>(d)];
  const Wide expected = item * array.dims[0];
  array.values = read_values(source, expected);
  const Wide actual = Wide{array.values.size()} + source.drain();
  if (actual != expected)
    fail(ExitCode::kData,
         "{}: the header says {} {} ({} bytes), but the file holds {} ({} bytes); copy or download it "
         "again",
         name, array.dims[0], describe(array.dims), expected, actual / item, actual);
  return array;
}

std::unique_ptr<IdxDataset> IdxDataset::open(const std::string& directory, Split split) {
  ByteImages images = load_images(directory, split);
  Normalization normalization;
  if (split == Split::kTrain) {
    normalization = measure(images.pixels, 1);
  } else {
    const auto [training, path] = load(directory, Split::kTrain, kImageRank);
    check_same_size(images.shape, directory, training, path);
    normalization = measure(training.values, 1);
  }
  return std::unique_ptr<IdxDataset>(new IdxDataset(std::move(images), kClasses, std::move(normalization)));
}

std::unique_ptr<IdxDataset> IdxDataset::open(const std::string& directory, Split split,
                                             Normalization normalization) {
  return std::unique_ptr<IdxDataset>(
      new IdxDataset(load_images(directory, split), kClasses, std::move(normalization)));
}

}  // namespace trireme
