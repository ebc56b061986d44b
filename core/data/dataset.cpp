#include "core/data/dataset.h"

#include <string_view>

#include "core/data/cifar.h"
#include "core/data/idx.h"
#include "core/data/synthetic.h"
#include "kernels/error.h"

namespace trireme {

std::vector<SampleField> ImageDataset::fields() const {
  const SampleShape s = sample_shape();
  return {{{s.channels, s.height, s.width}, DType::kFloat32, true}, {{}, DType::kInt64}};
}

void ImageDataset::read(const SampleId& id, std::span<std::byte* const> to) const {
  get(id.index, reinterpret_cast<float*>(to[0]), reinterpret_cast<std::int64_t*>(to[1]));
}

std::unique_ptr<ImageDataset> open_dataset(const std::string& spec, Split split) {
  const std::size_t colon = spec.find(':');
  const std::string_view kind = std::string_view(spec).substr(0, colon);
  const std::string argument = colon == std::string::npos ? "" : spec.substr(colon + 1);
  if (kind == "idx" && !argument.empty()) return IdxDataset::open(argument, split);
  if (kind == "cifar" && !argument.empty()) return CifarDataset::open(argument, split);
  if (kind == "synthetic") return SyntheticDataset::open(argument, split);
  fail(ExitCode::kUsage, "--data: '{}' is not one of idx:DIR, cifar:DIR, synthetic[:C,H,W,classes,count]",
       spec);
}

}  // namespace trireme
