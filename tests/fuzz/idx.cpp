// libFuzzer entry for the IDX reader. The first byte chooses images or labels. With clang, from the root:
//
//   clang++ -std=c++20 -O1 -g -I. -fsanitize=fuzzer,address,undefined tests/fuzz/idx.cpp core/data/idx.cpp
//     core/data/byte_images.cpp core/data/byte_source.cpp -lfmt -lz -o idx_fuzzer && ./idx_fuzzer
#include "tests/fuzz/idx.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  trireme::fuzz::try_idx({data + 1, size - 1}, data[0] % 2 == 0 ? 3 : 1);
  return 0;
}
