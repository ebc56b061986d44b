// The oneDNN engine, stream and keys of prepared primitives that all kernels with oneDNN share.
// Include only from kernels/cpu.
#pragma once

#include <array>
#include <cstdint>
#include <dnnl.hpp>

#include "kernels/cpu/scratch.h"
#include "kernels/rng.h"

namespace trireme::cpu {

inline const dnnl::engine& dnnl_engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

inline dnnl::stream& dnnl_stream() {
  thread_local dnnl::stream stream(dnnl_engine());
  return stream;
}

inline void dnnl_reorder(dnnl::memory from, dnnl::memory to) {
  dnnl::reorder(from, to).execute(dnnl_stream(), from, to);
}

/// Everything that decides which primitive is needed.
using ShapeKey = std::array<std::int64_t, 19>;

struct ShapeKeyHash {
  std::size_t operator()(const ShapeKey& key) const {
    std::uint64_t hash = 0;
    for (std::int64_t value : key) hash = mix64(hash ^ static_cast<std::uint64_t>(value));
    return hash;
  }
};

}  // namespace trireme::cpu
