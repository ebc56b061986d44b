// libFuzzer entry for the checkpoint readers. The first byte chooses a safetensors header or a manifest. The
// manifest gets a valid checksum, so that the fuzzer reaches the parser. With clang, from the root of a built
// tree:
//
//   clang++ -std=c++20 -O1 -g -I. -isystem build/proto -fsanitize=fuzzer,address,undefined
//   tests/fuzz/checkpoint.cpp
//     core/interchange/{safetensors,tensor_slot}.cpp core/base/file_system.cpp
//     distributed/checkpoint/{manifest,memory_file_system}.cpp
//     core/base/crc32c.cpp build/distributed/libtrireme_proto.a -lprotobuf -lfmt -o checkpoint_fuzzer
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>

#include "core/base/crc32c.h"
#include "core/interchange/safetensors.h"
#include "distributed/checkpoint/manifest.h"
#include "distributed/checkpoint/memory_file_system.h"

namespace {

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "fuzz checkpoint: %s\n", what);
  std::abort();
}

void try_safetensors(std::span<const std::uint8_t> bytes) {
  trireme::MemoryFileSystem files;
  files.create("/f")->append(std::as_bytes(bytes));
  std::uint64_t used = 0, first = bytes.size();
  const auto layout = trireme::read_safetensors_layout(files, "/f");
  for (const auto& entry : layout.entries) {
    require(entry.offset <= bytes.size() && entry.bytes <= bytes.size() - entry.offset,
            "a tensor outside the file");
    first = std::min(first, entry.offset);
    used += entry.bytes;
  }
  require(used == bytes.size() - first || layout.entries.empty(), "tensors that do not fill the file");
}

void try_manifest(std::span<const std::uint8_t> bytes) {
  std::string sealed(bytes.begin(), bytes.end());
  const std::uint32_t crc = trireme::crc32c(sealed.data(), sealed.size());
  sealed += '\x7D';
  for (unsigned shift = 0; shift < 32; shift += 8) sealed += static_cast<char>(crc >> shift);
  const trireme::Manifest manifest = trireme::decode_manifest(sealed, "'/f'");
  trireme::check_complete(manifest, "'/f'");
  require(trireme::decode_manifest(trireme::encode_manifest(manifest), "'/f'") == manifest,
          "it does not round-trip");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  try {
    if (data[0] % 2 == 0)
      try_safetensors({data + 1, size - 1});
    else
      try_manifest({data + 1, size - 1});
  } catch (const trireme::Error& error) {
    const std::string message = error.what();
    require(error.code() == trireme::ExitCode::kCheckpoint, "an error that is not kCheckpoint");
    require(message.find("'/f'") != std::string::npos, "an error that does not name the file");
  }
  return 0;
}
