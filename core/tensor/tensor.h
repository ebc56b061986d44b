// Tensor: a cheap handle to a strided view of reference-counted memory.
#pragma once

#include <cstddef>
#include <functional>
#include <initializer_list>
#include <span>
#include <vector>

#include "core/base/ref.h"
#include "core/tensor/shape.h"
#include "kernels/device.h"
#include "kernels/dtype.h"
#include "kernels/scalar.h"
#include "kernels/view.h"

namespace trireme {

/// A pending write: memory that is filled asynchronously, for example by a collective.
struct Filling : RefCounted {
  virtual ~Filling() = default;
  /// Blocks until the memory is filled. Throws the error of a write that failed.
  virtual void wait() = 0;
};

/// A block of device memory. Every in-place write increments its version.
struct Storage : RefCounted {
  Storage(std::size_t size, Device where);
  /// Wraps memory that the caller owns. `give_back` is called once, when no tensor uses the memory any more.
  Storage(void* memory, std::size_t size, Device where, std::function<void()> give_back);
  ~Storage();
  void* data = nullptr;
  std::size_t bytes = 0;
  Device device;
  bool read_only = false;           ///< its owner forbids writing
  std::function<void()> give_back;  ///< null if the memory is from allocate()
  std::atomic<std::uint32_t> version{0};
  std::atomic<const char*> changed_by{""};  ///< the op of the last in-place write
  /// The pending write of this memory, or null. Tensor::raw() waits for it. Only one thread may use the
  /// memory until then.
  Ref<Filling> filling;
  /// A copy in CPU memory of integers on a device, as they were at version 0, or null. See host_values().
  Ref<Storage> host_copy;
};

/// Autograd's data of a tensor. It is defined in core/autograd/meta.h.
struct AutogradMeta;

struct TensorImpl : RefCounted {
  TensorImpl() = default;
  ~TensorImpl();
  Ref<Storage> storage;
  std::int64_t offset = 0;  ///< in elements
  Shape shape;
  Shape strides;  ///< in elements
  DType dtype = DType::kFloat32;
  /// The tensor that a recorded view is a view of, which is no view itself. Null for other tensors.
  Ref<TensorImpl> base;
  /// The number of recorded in-place changes. In a view, the number that the view's history includes.
  std::uint32_t generation = 0;
  AutogradMeta* autograd = nullptr;  ///< owned; null for a tensor that autograd does not know
};

/// A handle to a tensor. Copying a handle shares the memory, as in PyTorch. Handles to one tensor may be
/// copied on any thread. Writes to the same memory from two threads at once are a data race, which the caller
/// must prevent.
class Tensor {
 public:
  Tensor() = default;
  explicit Tensor(Ref<TensorImpl> impl) : impl_(std::move(impl)) {}

  /// Returns an uninitialized row-major tensor.
  static Tensor empty(const Shape& shape, DType dtype = DType::kFloat32, Device device = kCpu);
  /// Returns an uninitialized tensor (N,C,H,W) with channels next to each other in memory.
  static Tensor empty_channels_last(const Shape& shape, DType dtype = DType::kFloat32, Device device = kCpu);
  /// Returns an uninitialized dense tensor. It has the strides of `like` if that is dense, else row-major
  /// ones.
  static Tensor empty_like(const Tensor& like);
  /// Returns an uninitialized tensor with these strides in memory that is just large enough. Throws if a
  /// stride is negative.
  static Tensor empty_strided(const Shape& shape, const Shape& strides, DType dtype = DType::kFloat32,
                              Device device = kCpu);
  /// Returns a tensor whose elements are all `value`. Integer dtypes drop its fraction. Throws if an integer
  /// dtype cannot hold the value.
  static Tensor full(const Shape& shape, Scalar value, DType dtype = DType::kFloat32, Device device = kCpu);
  static Tensor zeros(const Shape& shape, DType dtype = DType::kFloat32, Device device = kCpu) {
    return full(shape, 0, dtype, device);
  }
  static Tensor ones(const Shape& shape, DType dtype = DType::kFloat32, Device device = kCpu) {
    return full(shape, 1, dtype, device);
  }
  /// Copies `values` (row-major) into a new tensor. Throws unless their number is shape.numel().
  template <class T>
  static Tensor from(const std::vector<T>& values, const Shape& shape);
  /// Returns a tensor of zero dimensions on the CPU.
  static Tensor scalar(Scalar value, DType dtype = DType::kFloat32) { return full({}, value, dtype); }

  bool defined() const { return static_cast<bool>(impl_); }
  const Shape& shape() const { return body().shape; }
  const Shape& strides() const { return body().strides; }
  int dim() const { return body().shape.size(); }
  /// Returns the size of dimension d. A negative d counts from the end.
  std::int64_t size(int d) const { return body().shape[wrap_dim(d, dim(), "size")]; }
  std::int64_t numel() const { return body().shape.numel(); }
  DType dtype() const { return body().dtype; }
  Device device() const { return body().storage->device; }
  std::int64_t offset() const { return body().offset; }
  /// Throws an error that names `op` if the memory belongs to another library that forbids writing.
  void check_writable(const char* op) const {
    TRIREME_CHECK(!body().storage->read_only, "{}: the tensor's memory is read-only; clone() it first", op);
  }
  std::uint32_t version() const { return body().storage->version.load(std::memory_order_relaxed); }
  /// Increments the version. Every in-place write must call this. `op` must be a string literal.
  void bump_version(const char* op) const {
    body().storage->changed_by.store(op, std::memory_order_relaxed);
    body().storage->version.fetch_add(1, std::memory_order_relaxed);
  }

  /// Returns a pointer to the first element for code on the CPU. Throws if T is not the dtype's type or the
  /// tensor is not on the CPU.
  template <class T>
  T* data() const {
    TRIREME_CHECK(dtype_of<T> == dtype(), "data: tensor is {}, asked for {}", name_of(dtype()),
                  name_of(dtype_of<T>));
    TRIREME_CHECK(device().is_cpu(),
                  "data: tensor is on {}, which the host cannot read; copy it with to(t, kCpu)",
                  name_of(device()));
    return static_cast<T*>(raw());
  }
  void* raw() const {
    if (body().storage->filling) [[unlikely]]
      wait_until_filled();
    return static_cast<char*>(body().storage->data) +
           body().offset * static_cast<std::int64_t>(size_of(dtype()));
  }
  View view() const;
  /// Returns the only element as a double. The calling thread waits for the device. Throws unless numel() is
  /// 1, and for an int64 that no double equals.
  double item() const;
  /// Returns the only element, converted to a T as static_cast does. The calling thread waits for the device.
  /// Throws unless numel() is 1.
  template <class T>
  T value() const;
  /// Returns all elements in row-major order, converted to T. The calling thread waits for the device.
  template <class T>
  std::vector<T> to_vector() const;

  bool is_contiguous() const;
  bool is_channels_last() const;
  /// Returns true if the elements fill their memory without holes or overlap, in any order of dimensions.
  bool is_dense() const;
  /// Returns this tensor if it is row-major, else a row-major copy. Autograd does not record it.
  Tensor row_major() const;
  /// Returns a view of the same memory, without a bounds check. `offset` is in elements and counts from the
  /// start of the storage. Autograd does not record it.
  Tensor alias(const Shape& shape, const Shape& strides, std::int64_t offset) const;
  /// Returns a new tensor on the same memory that autograd does not know.
  Tensor detach() const { return alias(body().shape, body().strides, body().offset); }

  // Autograd: defined in core/autograd/autograd.cpp.
  /// Returns a copy in new memory with the layout of empty_like(). It is differentiable.
  Tensor clone() const;
  bool requires_grad() const;
  /// Makes this leaf accumulate gradients, or stops it from doing so. Returns *this. Throws if the tensor is
  /// not a leaf, or if `on` is true and its dtype is not floating point.
  Tensor& set_requires_grad(bool on);
  bool is_leaf() const;
  /// Returns the gradient of a leaf, or of a result that retain_grad() was called for. It is undefined until
  /// a backward pass has reached this tensor. Later accumulation does not modify a tensor returned earlier.
  Tensor grad() const;
  /// Replaces the gradient. An undefined tensor removes it. Throws unless `grad` has this tensor's shape,
  /// dtype and device.
  void set_grad(Tensor grad) const;
  /// Makes later backward passes store the gradient of this op's result, too, after its hooks have run.
  /// Throws unless requires_grad().
  void retain_grad() const;
  /// Adds d(this)/d(leaf) to the gradient of every leaf. The tensor must have one element. See
  /// core/autograd/autograd.h.
  void backward() const;

  TensorImpl* impl() const { return impl_.get(); }
  bool is_same(const Tensor& other) const { return impl_ == other.impl_; }

 private:
  /// Throws if the tensor is undefined.
  TensorImpl& body() const {
    if (!impl_) [[unlikely]]
      fail_undefined();
    return *impl_;
  }
  [[noreturn]] static void fail_undefined();
  void wait_until_filled() const;

  Ref<TensorImpl> impl_;
};

template <class T>
Tensor Tensor::from(const std::vector<T>& values, const Shape& shape) {
  check_size("from", shape);
  TRIREME_CHECK(static_cast<std::int64_t>(values.size()) == shape.numel(), "from: {} values for shape {}",
                values.size(), shape.to_string());
  Tensor out = empty(shape, dtype_of<T>);
  T* data = out.data<T>();
  for (std::size_t i = 0; i < values.size(); ++i) data[i] = values[i];
  return out;
}

/// Returns the memory of a row-major tensor, on its device. Throws if the tensor is not row-major.
std::span<std::byte> memory_of(const Tensor& t);

/// Returns true if products of t's numbers are computed in float32 and rounded, because its device has no
/// kernels that multiply 16-bit numbers.
bool is_widened(const Tensor& t);

/// Returns a view of t's elements as `shape`, which t must broadcast to. Repeated dimensions have stride 0.
View broadcast_view(const Tensor& t, const Shape& shape);

/// Copies the elements of `in` into `out`, converting the dtype. The shape of `in` must be that of `out` or
/// broadcast to it. Autograd does not record it.
void copy_into(const Tensor& out, const Tensor& in);

/// Returns `t` converted to `dtype`, or `t` itself if it has that dtype. Autograd does not record it.
Tensor to_dtype(const Tensor& t, DType dtype);

/// Returns a copy of `t` on `device`, or `t` itself if it is there. The copy has the strides of `t` if that
/// is dense, else row-major ones. If `under_way` is given, it is an upload of t's elements, dense, that has
/// been started and is finished here. Autograd does not record it.
Tensor to_device(const Tensor& t, Device device, Upload* under_way = nullptr);

/// Returns t's elements in CPU memory, for reading only. The CPU does not wait for the device if t has few
/// integers (labels, indices) that were copied from the CPU and have not changed since. Do not use it for
/// memory that collectives write.
Tensor host_values(const Tensor& t);

/// Moves the tensor, and with it every handle to it, to another device, as `p.data = p.data.to(device)` does
/// in PyTorch. Its views keep the old memory, and its gradient is dropped. Throws if the tensor is a view or
/// the result of an op.
void move_to(const Tensor& t, Device device);

template <class T>
T Tensor::value() const {
  TRIREME_CHECK(defined() && numel() == 1, "item: needs a tensor of one element, got shape {}",
                defined() ? shape().to_string() : "of an undefined tensor");
  const Tensor here = to_device(*this, kCpu);
  return visit_dtype(dtype(), [&](auto type) { return static_cast<T>(*here.data<decltype(type)>()); });
}

template <class T>
std::vector<T> Tensor::to_vector() const {
  const Tensor flat = to_dtype(to_device(*this, kCpu), dtype_of<T>).row_major();
  const T* begin = flat.data<T>();
  return std::vector<T>(begin, begin + flat.numel());
}

}  // namespace trireme
