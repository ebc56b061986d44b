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

/// Memory that somebody else fills while the program goes on.
struct Filling : RefCounted {
  virtual ~Filling() = default;
  /// Returns when the memory is filled, or throws what went wrong.
  virtual void wait() = 0;
};

/// A block of device memory with a version that every in-place write raises.
struct Storage : RefCounted {
  Storage(std::size_t size, Device where);
  /// Memory of somebody else: `give_back` is called once, when no tensor looks into it any more.
  Storage(void* memory, std::size_t size, Device where, std::function<void()> give_back);
  ~Storage();
  void* data = nullptr;
  std::size_t bytes = 0;
  Device device;
  bool read_only = false;           ///< its owner forbids writing
  std::function<void()> give_back;  ///< null: the memory is the allocator's
  std::atomic<std::uint32_t> version{0};
  std::atomic<const char*> changed_by{""};  ///< the op of the last in-place write
  /// Null, or what Tensor::raw() waits for, on the one thread that uses the memory meanwhile.
  Ref<Filling> filling;
  Ref<Storage> host_copy;  ///< of a few integers on a device, as they were at version 0: see host_values()
};

/// What autograd keeps with a tensor; defined in core/autograd.
struct AutogradMeta;

struct TensorImpl : RefCounted {
  TensorImpl() = default;
  ~TensorImpl();
  Ref<Storage> storage;
  std::int64_t offset = 0;  ///< in elements
  Shape shape;
  Shape strides;  ///< in elements
  DType dtype = DType::kFloat32;
  Ref<TensorImpl> base;              ///< of a recorded view: the tensor (itself no view) that it looks into
  std::uint32_t generation = 0;      ///< recorded in-place changes of a base; in a view, those it knows of
  AutogradMeta* autograd = nullptr;  ///< owned; null for a tensor that autograd does not know
};

/// A handle: copying shares memory, as in PyTorch. Handles to one tensor may be copied on any thread;
/// writing to the same memory from two threads at once is the caller's race.
class Tensor {
 public:
  Tensor() = default;
  explicit Tensor(Ref<TensorImpl> impl) : impl_(std::move(impl)) {}

  /// Uninitialized, row-major.
  static Tensor empty(const Shape& shape, DType dtype = DType::kFloat32, Device device = kCpu);
  /// Uninitialized (N,C,H,W) with channels next to each other in memory.
  static Tensor empty_channels_last(const Shape& shape, DType dtype = DType::kFloat32, Device device = kCpu);
  /// Uninitialized, dense, with memory laid out as `like` where that is dense, else row-major.
  static Tensor empty_like(const Tensor& like);
  /// Uninitialized, with these strides (not negative) in memory that just holds them.
  static Tensor empty_strided(const Shape& shape, const Shape& strides, DType dtype = DType::kFloat32,
                              Device device = kCpu);
  /// Throws if an integer dtype cannot hold the value, whose fraction it cuts off.
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
  /// 0-d.
  static Tensor scalar(Scalar value, DType dtype = DType::kFloat32) { return full({}, value, dtype); }

  bool defined() const { return static_cast<bool>(impl_); }
  const Shape& shape() const { return body().shape; }
  const Shape& strides() const { return body().strides; }
  int dim() const { return body().shape.size(); }
  /// Size of dimension d; negative counts from the end.
  std::int64_t size(int d) const { return body().shape[wrap_dim(d, dim(), "size")]; }
  std::int64_t numel() const { return body().shape.numel(); }
  DType dtype() const { return body().dtype; }
  Device device() const { return body().storage->device; }
  std::int64_t offset() const { return body().offset; }
  /// Throws naming `op` if the memory is another library's and not to be written to.
  void check_writable(const char* op) const {
    TRIREME_CHECK(!body().storage->read_only, "{}: the tensor's memory is read-only; clone() it first", op);
  }
  std::uint32_t version() const { return body().storage->version.load(std::memory_order_relaxed); }
  /// Every in-place write says so here; `op` must be a string literal.
  void bump_version(const char* op) const {
    body().storage->changed_by.store(op, std::memory_order_relaxed);
    body().storage->version.fetch_add(1, std::memory_order_relaxed);
  }

  /// Pointer to the first element, for the host; T must be the dtype's type.
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
  /// Returns the only element as a double; the host waits for the device. Throws unless numel() is 1, and for
  /// an int64 that no double equals.
  double item() const;
  /// Returns the only element, converted to a T as static_cast does; otherwise as item().
  template <class T>
  T value() const;
  /// All elements in row-major order, converted; the host waits for the device.
  template <class T>
  std::vector<T> to_vector() const;

  bool is_contiguous() const;
  bool is_channels_last() const;
  /// True if elements fill their memory without holes or overlap, in whatever order of dimensions.
  bool is_dense() const;
  /// This tensor if its elements lie row-major, else a copy that does. Not recorded by autograd.
  Tensor row_major() const;
  /// A view of the same memory; no bounds check. Not recorded by autograd.
  Tensor alias(const Shape& shape, const Shape& strides, std::int64_t offset) const;
  /// A new handle on the same memory that autograd does not know.
  Tensor detach() const { return alias(body().shape, body().strides, body().offset); }

  // Autograd: defined in core/autograd/autograd.cpp.
  /// Same elements in new memory of the same order. Differentiable.
  Tensor clone() const;
  bool requires_grad() const;
  /// Makes this a leaf that gathers gradients (or not). Floating point leaves only. Returns *this.
  Tensor& set_requires_grad(bool on);
  bool is_leaf() const;
  /// Undefined until a backward pass reached this leaf, or result that retain_grad() was called for. Where
  /// more is added while somebody holds the tensor that this returned, that tensor stays as it is.
  Tensor grad() const;
  /// Of this tensor's shape, dtype and device; undefined: none.
  void set_grad(Tensor grad) const;
  /// From now on backward() gathers the grad of this result of an op, too, as hooks leave it.
  void retain_grad() const;
  /// From a tensor of one element: adds d(this)/d(leaf) to every leaf's grad. See core/autograd/autograd.h.
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

/// The memory of a row-major tensor, on its device.
std::span<std::byte> memory_of(const Tensor& t);

/// Whether products of t's numbers are computed in float32 and rounded, for want of kernels that take them.
bool is_widened(const Tensor& t);

/// t's elements seen as `shape`, which t must broadcast to: repeated dimensions have stride 0.
View broadcast_view(const Tensor& t, const Shape& shape);

/// Copies elements into `out` (same shape or broadcast), converting the dtype. Not recorded by autograd.
void copy_into(const Tensor& out, const Tensor& in);

/// `t` converted; `t` itself if it has that dtype. Not recorded by autograd.
Tensor to_dtype(const Tensor& t, DType dtype);

/// `t` on another device, laid out as there where it is dense, else row-major; `t` itself if it is there. Not
/// recorded by autograd. `under_way`: its elements, dense, on their way there.
Tensor to_device(const Tensor& t, Device device, Upload* under_way = nullptr);

/// t's elements in the host's memory, to look at. Where t is one of few integers (labels, indices) that came
/// from there and were not changed since, the host need not wait for the device. Not for what collectives
/// write.
Tensor host_values(const Tensor& t);

/// Moves the tensor itself to another device, and so every handle on it (as `p.data = p.data.to(device)` does
/// in PyTorch). Views of it keep looking at the old memory, and its grad is dropped. Throws if
/// autograd made it from others.
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
