#include "core/interchange/dlpack.h"

#include <algorithm>
#include <memory>

#include "kernels/table.h"

namespace trireme::dlpack {

namespace {

constexpr std::int32_t kCpuType = 1, kCudaType = 2, kCudaHostType = 3;
constexpr std::uint8_t kInt = 0, kUInt = 1, kFloat = 2, kBFloat = 4, kBool = 6;

constexpr struct {
  DType dtype;
  std::uint8_t code, bits;
} kTypes[] = {{DType::kFloat32, kFloat, 32}, {DType::kFloat64, kFloat, 64}, {DType::kInt64, kInt, 64},
              {DType::kUInt8, kUInt, 8},     {DType::kBool, kBool, 8},      {DType::kBFloat16, kBFloat, 16},
              {DType::kFloat16, kFloat, 16}};

/// A struct that was given to another library, with the data that it keeps alive.
template <class ManagedT>
struct Export {
  Tensor tensor;
  std::int64_t shape[kMaxDims], strides[kMaxDims];
  ManagedT managed;
};

ElementType type_of(DType dtype) {
  for (const auto& known : kTypes)
    if (known.dtype == dtype) return {known.code, known.bits, 1};
  fail(ExitCode::kInternal, "to_dlpack: no element type for {}", name_of(dtype));
}

template <class ManagedT>
ManagedT* exported(const Tensor& t) {
  TRIREME_CHECK(t.defined(), "to_dlpack: an undefined tensor");
  TRIREME_CHECK(!t.requires_grad(), "to_dlpack: the tensor wants gradients; detach() it first");
  auto out = std::make_unique<Export<ManagedT>>();
  out->tensor = t.detach();  // not the handle: what others do to it is not ours to see
  std::copy(t.shape().begin(), t.shape().end(), out->shape);
  std::copy(t.strides().begin(), t.strides().end(), out->strides);
  Array& array = out->managed.array;
  // Some readers take byte_offset for 0.
  array.data = t.numel() ? t.raw() : nullptr;
  array.device = {t.device().is_cpu() ? kCpuType : kCudaType, t.device().index};
  array.dims = t.dim();
  array.type = type_of(t.dtype());
  array.shape = out->shape;
  array.strides = out->strides;
  array.byte_offset = 0;
  out->managed.context = out.get();
  out->managed.deleter = [](ManagedT* self) { delete static_cast<Export<ManagedT>*>(self->context); };
  return &out.release()->managed;
}

Device device_of(const DeviceId& id) {
  if (id.type == kCpuType || id.type == kCudaHostType) return kCpu;
  TRIREME_CHECK(id.type == kCudaType && id.index >= 0 && id.index <= INT8_MAX,
                "from_dlpack: device type {} number {}; CPU (1) and CUDA (2) are known", id.type, id.index);
  const Device device{DeviceType::kCuda, static_cast<std::int8_t>(id.index)};
  kernels_of(device);  // says why there is none
  return device;
}

DType dtype_of(const ElementType& type) {
  if (type.lanes == 1)
    for (const auto& known : kTypes)
      if (known.code == type.code && known.bits == type.bits) return known.dtype;
  fail(ExitCode::kInternal,
       "from_dlpack: no DType for elements of code {}, {} bits, {} lanes; convert them first", type.code,
       type.bits, type.lanes);
}

/// A handle whose storage is still to come; also tells how many bytes it reaches over.
Ref<TensorImpl> described(const Array& array, std::size_t& bytes) {
  TRIREME_CHECK(array.dims >= 0 && array.dims <= kMaxDims,
                "from_dlpack: {} dimensions; at most {} can be held", array.dims, kMaxDims);
  auto impl = make_ref<TensorImpl>();
  impl->dtype = dtype_of(array.type);
  impl->shape = Shape(std::span<const std::int64_t>(array.shape, static_cast<std::size_t>(array.dims)));
  check_size("from_dlpack", impl->shape);
  impl->strides = array.strides ? Shape(std::span<const std::int64_t>(array.strides, impl->shape.size()))
                                : contiguous_strides(impl->shape);
  // Where there is no second element, others write whatever they like.
  const Shape dense = contiguous_strides(impl->shape);
  const bool is_empty = impl->shape.numel() == 0;
  for (int d = 0; d < array.dims; ++d)
    if (impl->shape[d] <= 1 || is_empty) impl->strides[d] = dense[d];
  const std::size_t element = size_of(impl->dtype);
  auto reach = static_cast<std::int64_t>(element);  // bytes
  for (int d = 0; d < array.dims; ++d) {
    TRIREME_CHECK(impl->strides[d] >= 0, "from_dlpack: strides {} run backwards; copy the array first",
                  impl->strides.to_string());
    if (impl->shape[d] <= 1) continue;
    std::int64_t step = 0;
    TRIREME_CHECK(!__builtin_mul_overflow(impl->shape[d] - 1, impl->strides[d], &step) &&
                      !__builtin_mul_overflow(step, static_cast<std::int64_t>(element), &step) &&
                      !__builtin_add_overflow(reach, step, &reach),
                  "from_dlpack: shape {} with strides {} reaches over more than any memory",
                  impl->shape.to_string(), impl->strides.to_string());
  }
  bytes = impl->shape.numel() ? static_cast<std::size_t>(reach) : 0;
  const auto address = reinterpret_cast<std::uintptr_t>(array.data) + array.byte_offset;
  TRIREME_CHECK(bytes == 0 || (array.data && address % element == 0),
                "from_dlpack: the elements at {:#x} are not aligned to {} bytes; copy the array first",
                address, element);
  return impl;
}

template <class ManagedT>
Tensor imported(ManagedT* managed, bool read_only) {
  const Device device = device_of(managed->array.device);
  std::size_t bytes = 0;
  Ref<TensorImpl> impl = described(managed->array, bytes);
  char* data = static_cast<char*>(managed->array.data);
  impl->storage =
      make_ref<Storage>(data ? data + managed->array.byte_offset : data, bytes, device, [managed] {
        if (managed->deleter) managed->deleter(managed);
      });
  impl->storage->read_only = read_only;
  return Tensor(std::move(impl));
}

}  // namespace

ManagedVersioned* to_dlpack(const Tensor& t) {
  ManagedVersioned* managed = exported<ManagedVersioned>(t);
  managed->version = kVersion;
  managed->flags = t.impl()->storage->read_only ? kReadOnly : 0;
  return managed;
}

Managed* to_dlpack_unversioned(const Tensor& t) {
  if (t.defined()) t.check_writable("to_dlpack_unversioned");
  return exported<Managed>(t);
}

Tensor from_dlpack(ManagedVersioned* managed) {
  TRIREME_CHECK(managed, "from_dlpack: null");
  TRIREME_CHECK(managed->version.major == kVersion.major,
                "from_dlpack: DLPack version {}.{}, known is {}; ask its maker for an older one",
                managed->version.major, managed->version.minor, kVersion.major);
  return imported(managed, (managed->flags & kReadOnly) != 0);
}

Tensor from_dlpack(Managed* managed) {
  TRIREME_CHECK(managed, "from_dlpack: null");
  return imported(managed, false);
}

}  // namespace trireme::dlpack
