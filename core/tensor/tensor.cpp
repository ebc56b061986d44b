#include "core/tensor/tensor.h"

#include <algorithm>
#include <cstring>

#include "core/tensor/observer.h"

namespace trireme {

Storage::Storage(std::size_t size, Device where) : data(allocate(where, size)), bytes(size), device(where) {
  if (observer) observer->allocated(data, bytes);
}
Storage::Storage(void* memory, std::size_t size, Device where, std::function<void()> owner)
    : data(memory), bytes(size), device(where), give_back(std::move(owner)) {}
Storage::~Storage() {
  if (give_back) {
    give_back();
    return;
  }
  if (observer) observer->freed(data);
  deallocate(device, data, bytes);
}

namespace {

/// Returns an uninitialized tensor. The caller has checked the shape with check_size().
Tensor make(const Shape& shape, const Shape& strides, DType dtype, Device device) {
  const std::int64_t count = shape.numel();
  auto impl = make_ref<TensorImpl>();
  impl->storage = make_ref<Storage>(static_cast<std::size_t>(count) * size_of(dtype), device);
  impl->shape = shape;
  impl->strides = strides;
  impl->dtype = dtype;
  return Tensor(std::move(impl));
}

bool strides_match(const Shape& shape, const Shape& strides, const Shape& wanted) {
  for (int d = 0; d < shape.size(); ++d)
    if (shape[d] > 1 && strides[d] != wanted[d]) return false;
  return true;
}

}  // namespace

void Tensor::wait_until_filled() const {
  const Ref<Filling> filling = impl_->storage->filling;
  filling->wait();
  impl_->storage->filling = nullptr;
}

void Tensor::fail_undefined() {
  fail(ExitCode::kInternal,
       "tensor: it is undefined (made by Tensor(), or a grad() or member that nothing was given); ask "
       "defined() "
       "first");
}

Tensor Tensor::empty(const Shape& shape, DType dtype, Device device) {
  check_size("empty", shape);
  return make(shape, contiguous_strides(shape), dtype, device);
}

Tensor Tensor::empty_channels_last(const Shape& shape, DType dtype, Device device) {
  check_size("empty_channels_last", shape);
  return make(shape, channels_last_strides(shape), dtype, device);
}

Tensor Tensor::empty_like(const Tensor& like) {
  const bool dense = like.is_dense();
  return make(like.shape(), dense ? like.strides() : contiguous_strides(like.shape()), like.dtype(),
              like.device());
}

Tensor Tensor::empty_strided(const Shape& shape, const Shape& strides, DType dtype, Device device) {
  check_size("empty_strided", shape);
  std::int64_t extent = 1, reach = 0;
  for (int d = 0; d < shape.size(); ++d)
    TRIREME_CHECK(strides[d] >= 0 && !__builtin_mul_overflow(shape[d] - 1, strides[d], &reach) &&
                      !__builtin_add_overflow(extent, reach, &extent),
                  "empty_strided: shape {} does not go with strides {}", shape.to_string(),
                  strides.to_string());
  return empty({shape.numel() ? extent : 0}, dtype, device).alias(shape, strides, 0);
}

Tensor Tensor::full(const Shape& shape, Scalar value, DType dtype, Device device) {
  TRIREME_CHECK(value.fits(dtype), "full: {} is outside of the range of {}", value.to_string(),
                name_of(dtype));
  Tensor out = empty(shape, dtype, device);
  kernels_for(device).fill(out.view(), value);
  return out;
}

double Tensor::item() const {
  const auto number = value<double>();
  if (dtype() != DType::kInt64) return number;
  const auto exact = value<std::int64_t>();
  TRIREME_CHECK(Scalar(number).fits<std::int64_t>() && Scalar(number).to<std::int64_t>() == exact,
                "item: {} is no double; read it with value<std::int64_t>()", exact);
  return number;
}

View Tensor::view() const {
  View v;
  v.data = raw();
  v.dtype = dtype();
  v.dims = dim();
  // This copies all kMaxDims entries, used or not, so that the compiler emits moves and no call of memcpy.
  std::copy_n(shape().begin(), kMaxDims, v.shape);
  std::copy_n(strides().begin(), kMaxDims, v.strides);
  return v;
}

bool Tensor::is_contiguous() const {
  return numel() == 0 || strides_match(shape(), strides(), contiguous_strides(shape()));
}

bool Tensor::is_channels_last() const {
  return dim() == 4 && strides_match(shape(), strides(), channels_last_strides(shape()));
}

bool Tensor::is_dense() const {
  if (is_contiguous()) return true;
  // Looks for the dimension of stride 1 first, then for the one whose stride is the size of that, and so on.
  std::int64_t expected = 1;
  const std::int64_t all = numel();
  bool used[kMaxDims] = {};
  while (expected < all) {
    int next = -1;
    for (int d = 0; d < dim(); ++d)
      if (!used[d] && shape()[d] > 1 && strides()[d] == expected) next = d;
    if (next < 0) return false;
    used[next] = true;
    expected *= shape()[next];
  }
  return true;
}

Tensor Tensor::row_major() const {
  if (is_contiguous()) return *this;
  Tensor out = empty(shape(), dtype(), device());
  copy_into(out, *this);
  return out;
}

Tensor Tensor::alias(const Shape& new_shape, const Shape& new_strides, std::int64_t new_offset) const {
  auto impl = make_ref<TensorImpl>();
  impl->storage = body().storage;
  impl->offset = new_offset;
  impl->shape = new_shape;
  impl->strides = new_strides;
  impl->dtype = body().dtype;
  return Tensor(std::move(impl));
}

std::span<std::byte> memory_of(const Tensor& t) {
  TRIREME_CHECK(t.is_contiguous(), "memory_of: a tensor of strides {} is not row-major",
                t.strides().to_string());
  return {static_cast<std::byte*>(t.raw()), static_cast<std::size_t>(t.numel()) * size_of(t.dtype())};
}

View broadcast_view(const Tensor& t, const Shape& shape) {
  if (t.shape() == shape) return t.view();
  const int shift = shape.size() - t.dim();
  View wide = t.view();
  wide.dims = shape.size();
  for (int d = 0; d < shape.size(); ++d) {
    wide.shape[d] = shape[d];
    wide.strides[d] = d < shift || t.shape()[d - shift] != shape[d] ? 0 : t.strides()[d - shift];
  }
  return wide;
}

bool is_widened(const Tensor& t) {
  return is_low_precision(t.dtype()) && !kernels_of(t.device()).multiplies_16_bits;
}

void copy_into(const Tensor& out, const Tensor& in) {
  out.check_writable("copy");
  TRIREME_CHECK(broadcast_shapes(out.shape(), in.shape(), "copy") == out.shape(),
                "copy: shape {} does not fit into {}", in.shape().to_string(), out.shape().to_string());
  const Tensor near = to_device(in, out.device());
  kernels_for(out.device()).copy(out.view(), broadcast_view(near, out.shape()));
}

Tensor to_device(const Tensor& t, Device device, Upload* under_way) {
  if (t.device() == device) return t;
  const Tensor from = t.is_dense() ? t : t.row_major(),
               out = Tensor::empty_strided(from.shape(), from.strides(), t.dtype(), device);
  const std::size_t bytes = static_cast<std::size_t>(t.numel()) * size_of(t.dtype());
  TRIREME_CHECK(t.device().is_cpu() || device.is_cpu(), "to: from {} to {}: go through the CPU",
                name_of(t.device()), name_of(device));
  if (bytes == 0) return out;
  if (device.is_cpu()) {
    kernels_for(t.device()).copy_to_host(out.raw(), from.raw(), bytes);
    return out;
  }
  if (under_way)
    under_way->finish(out.raw());
  else
    kernels_for(device).copy_from_host(out.raw(), from.raw(), bytes);
  constexpr std::int64_t kFew = 1 << 20;
  if (t.dtype() == DType::kInt64 && t.numel() <= kFew) {
    auto copy = make_ref<Storage>(bytes, kCpu);
    std::memcpy(copy->data, from.raw(), bytes);
    out.impl()->storage->host_copy = std::move(copy);
  }
  return out;
}

Tensor host_values(const Tensor& t) {
  const Storage& storage = *t.impl()->storage;
  if (!storage.host_copy || storage.version != 0) return to_device(t, kCpu);
  auto impl = make_ref<TensorImpl>();
  impl->storage = storage.host_copy;
  impl->offset = t.offset();
  impl->shape = t.shape();
  impl->strides = t.strides();
  impl->dtype = t.dtype();
  return Tensor(std::move(impl));
}

void move_to(const Tensor& t, Device device) {
  if (t.device() == device) return;
  TRIREME_CHECK(t.is_leaf() && !t.impl()->base,
                "move_to: the tensor is a result or a view; copy it with to()");
  if (t.requires_grad()) t.set_grad({});
  const Tensor there = to_device(t, device);
  TensorImpl& impl = *t.impl();
  impl.storage = there.impl()->storage;
  impl.offset = 0;
  impl.strides = there.strides();
}

Tensor to_dtype(const Tensor& t, DType dtype) {
  if (t.dtype() == dtype) return t;
  Tensor out = Tensor::empty(t.shape(), dtype, t.device());
  copy_into(out, t);
  return out;
}

}  // namespace trireme
