// DLPack: tensors handed to and taken from other libraries (NumPy, PyTorch, JAX, CuPy, ...) without a copy.
//
// The structs have the layout of DLPack 1.x (https://dmlc.github.io/dlpack), so a pointer to one may be cast
// to the struct of the same role in any program's own dlpack.h, and back.
#pragma once

#include <cstdint>

#include "core/tensor/tensor.h"

namespace trireme::dlpack {

struct Version {
  std::uint32_t major, minor;
};

struct DeviceId {
  std::int32_t type;  ///< 1: CPU, 2: CUDA, 3: memory of the host that CUDA pinned
  std::int32_t index;
};

struct ElementType {
  std::uint8_t code;  ///< 0: int, 1: unsigned, 2: float, 4: bfloat, 6: bool
  std::uint8_t bits;
  std::uint16_t lanes;
};

/// DLTensor.
struct Array {
  void* data;
  DeviceId device;
  std::int32_t dims;
  ElementType type;
  std::int64_t* shape;
  std::int64_t* strides;  ///< in elements; null: row-major
  std::uint64_t byte_offset;
};

/// DLManagedTensor: what was exchanged before version 1.
struct Managed {
  Array array;
  void* context;
  void (*deleter)(Managed* self);
};

/// DLManagedTensorVersioned.
struct ManagedVersioned {
  Version version;
  void* context;
  void (*deleter)(ManagedVersioned* self);
  std::uint64_t flags;
  Array array;
};

inline constexpr Version kVersion{1, 0};
inline constexpr std::uint64_t kReadOnly = 1;  ///< a bit of ManagedVersioned's flags

/// The tensor's memory for another library; it stays alive until the caller, or whom it was passed on to,
/// calls the deleter, once, on any thread. Writes through it are not seen by autograd, so a tensor that wants
/// gradients must be detached first.
ManagedVersioned* to_dlpack(const Tensor& t);
/// Does what to_dlpack() does, for libraries older than DLPack 1. They do not support read-only memory, so a
/// read-only tensor must be cloned first.
Managed* to_dlpack_unversioned(const Tensor& t);

/// A tensor over another library's memory. Takes over `managed`, whose deleter is called once the last tensor
/// that looks into the memory is gone. In-place ops, copies into it and optimizers refuse memory that is
/// marked as read-only.
///
/// Throws, and leaves `managed` to the caller, for a device that this build cannot compute on, element types
/// that no DType stands for, more than kMaxDims dimensions, negative strides and unaligned elements.
Tensor from_dlpack(ManagedVersioned* managed);
Tensor from_dlpack(Managed* managed);

}  // namespace trireme::dlpack
