#include "distributed/ddp/power_sgd.h"

#include <algorithm>

#include "core/base/crc32c.h"
#include "core/ops/create.h"
#include "kernels/table.h"

namespace trireme {

namespace {

/// Row-major (rows, columns) from element `offset` of `memory`, as one of a batch.
View matrix_at(const Tensor& memory, std::int64_t offset, std::int64_t rows, std::int64_t columns) {
  return memory.alias({1, rows, columns}, {rows * columns, columns, 1}, memory.offset() + offset).view();
}

View transposed(View matrix) {
  std::swap(matrix.shape[1], matrix.shape[2]);
  std::swap(matrix.strides[1], matrix.strides[2]);
  return matrix;
}

View vector_at(const Tensor& memory, std::int64_t offset, std::int64_t count) {
  return memory.alias({count}, {1}, memory.offset() + offset).view();
}

View row_of(const View& matrix, std::int64_t row) {
  return {matrix.as<float>() + row * matrix.strides[1], matrix.dtype, 1, {matrix.shape[2]}, {1}};
}

/// One number, as often as needed.
View repeated(const View& number, std::int64_t count) { return {number.data, number.dtype, 1, {count}, {0}}; }

void dot(const KernelTable& kernels, const View& out, const View& a, const View& b, const View& spare) {
  kernels.binary(BinaryOp::mul, spare, a, b);
  kernels.reduce(ReduceOp::kSum, out, spare);
}

/// The temporary tensors of make_orthonormal(), on the device.
struct Workspace {
  Workspace(std::int64_t longest, Device device)
      : row(Tensor::empty({longest}, DType::kFloat32, device)),
        number(Tensor::empty({1}, DType::kFloat32, device)),
        other(Tensor::empty({1}, DType::kFloat32, device)),
        zero(Tensor::zeros({1}, DType::kFloat32, device)),
        flag(Tensor::empty({1}, DType::kBool, device)) {}
  Tensor row, number, other, zero, flag;
};

/// The fraction of a row's length that may be rounding. If no more than that remains of a row after the
/// projections on all earlier rows are subtracted, make_orthonormal() sets it to 0.
constexpr double kRounding = 1e-5;

/// Makes the rows of `matrix` orthogonal and of length 1 (Gram-Schmidt, one row after the other, each twice:
/// rounding of the first time does not survive the second), or 0 if they depend on those before.
void make_orthonormal(const KernelTable& kernels, const View& matrix, const Workspace& w) {
  const std::int64_t columns = matrix.shape[2];
  const View spare = vector_at(w.row, 0, columns), number = w.number.view(), other = w.other.view();
  for (std::int64_t k = 0; k < matrix.shape[1]; ++k) {
    const View row = row_of(matrix, k);
    dot(kernels, other, row, row, spare);
    kernels.unary(UnaryOp::sqrt, other, other, {});
    kernels.unary(UnaryOp::mul_scalar, other, other, {kRounding});
    for (int times = 0; times < 2; ++times)
      for (std::int64_t j = 0; j < k; ++j) {
        const View before = row_of(matrix, j);
        dot(kernels, number, row, before, spare);
        kernels.binary(BinaryOp::mul, spare, before, repeated(number, columns));
        kernels.binary(BinaryOp::sub, row, row, spare);
      }
    dot(kernels, number, row, row, spare);
    kernels.unary(UnaryOp::sqrt, number, number, {});
    kernels.compare(CompareOp::gt, w.flag.view(), number, other);
    kernels.binary(BinaryOp::div, spare, row, repeated(number, columns));
    kernels.where(row, repeated(w.flag.view(), columns), spare, repeated(w.zero.view(), columns));
  }
}

}  // namespace

PowerSgd::PowerSgd(PowerSgdOptions options) : options_(options) {
  if (options_.rank < 1) fail(ExitCode::kUsage, "powersgd: rank {}: must be at least 1", options_.rank);
}

void PowerSgd::attach(const std::vector<NamedTensor>& parameters, int shards, ShardRange range) {
  shards_ = shards;
  range_ = range;
  for (const auto& [name, parameter] : parameters) {
    if (parameter.dim() < 2 || parameter.numel() == 0) continue;
    Matrix matrix{parameter.size(0), parameter.numel() / parameter.size(0), 0, {}, {}};
    const auto& [n, m] = std::pair(matrix.rows, matrix.columns);
    matrix.rank = std::min<std::int64_t>({options_.rank, n, m});
    if (static_cast<double>((n + m) * matrix.rank) * options_.least_gain >= static_cast<double>(n * m))
      continue;
    const Device device = parameter.device();
    matrix.q = first_q(name, matrix, device);
    matrix.error = Tensor::zeros({range.size(), n, m}, DType::kFloat32, device);
    matrices_[name] = std::move(matrix);
  }
}

Tensor PowerSgd::first_q(const std::string& parameter, const Matrix& matrix, Device device) const {
  const RandomKey key = random_key(options_.seed, crc32c(parameter.data(), parameter.size()), 0);
  return to_device(normal({matrix.rank, matrix.columns}, key), device);
}

void PowerSgd::forget() {
  for (const auto& [name, matrix] : matrices_) {
    copy_into(matrix.q, first_q(name, matrix, matrix.q.device()));
    kernels_of(matrix.error.device()).fill(matrix.error.view(), 0);
  }
}

std::vector<StateTensor> PowerSgd::state() const {
  std::vector<StateTensor> all;
  for (const auto& [name, matrix] : matrices_) {
    const std::int64_t n = matrix.rows, m = matrix.columns;
    all.push_back({{name + ".q", matrix.q}, {}});
    all.push_back({{name + ".error", matrix.error.alias({range_.size() * n * m}, {1}, matrix.error.offset())},
                   StateTensor::Part{{shards_, n, m}, range_.first * n * m}});
  }
  return all;
}

/// Computes the mean of parameters that are not compressed.
void PowerSgd::sum_others(GradientBucket& bucket) const {
  struct Copy {
    std::int64_t from, to, count;
  };
  std::vector<Copy> copies;
  std::int64_t total = 0;
  for (const GradientBucket::Entry& entry : bucket.entries()) {
    if (matrices_.contains(entry.name)) continue;
    copies.push_back({static_cast<std::int64_t>(entry.offset), total, entry.shape.numel()});
    total += entry.shape.numel();
  }
  if (total == 0) return;
  const KernelTable& kernels = kernels_of(bucket.comm().device());
  const Tensor sum = Tensor::empty({total}, DType::kFloat32, bucket.comm().device());
  std::vector<Tensor> packed;
  for (std::size_t s = 0; s < bucket.parts().size(); ++s) packed.push_back(Tensor::empty_like(sum));
  bucket.run([&kernels, parts = bucket.parts(), packed, copies] {
    for (std::size_t s = 0; s < parts.size(); ++s)
      for (const Copy& c : copies)
        kernels.copy(vector_at(packed[s], c.to, c.count), vector_at(parts[s], c.from, c.count));
  });
  bucket.sum(packed, sum, 1.0 / shards_);
  bucket.run([&kernels, mean = bucket.mean(), sum, copies] {
    for (const Copy& c : copies)
      kernels.copy(vector_at(mean, c.from, c.count), vector_at(sum, c.to, c.count));
  });
}

/// The factors P and Q of all matrices of a bucket, one matrix after the other, as ranks exchange them. All
/// are stored transposed: (rank, n) and (rank, m).
struct PowerSgd::Exchange {
  Exchange(std::vector<Place> at, std::int64_t p_size, std::int64_t q_size, std::int64_t longest, int shards,
           Device device)
      : places(std::move(at)),
        kernels(kernels_of(device)),
        p(Tensor::empty({p_size}, DType::kFloat32, device)),
        q(Tensor::empty({q_size}, DType::kFloat32, device)),
        work(longest, device) {
    for (int s = 0; s < shards; ++s) {
      ps.push_back(Tensor::empty_like(p));
      qs.push_back(Tensor::empty_like(q));
    }
  }
  const std::vector<Place> places;
  const KernelTable& kernels;
  std::vector<Tensor> ps, qs;  ///< those of this rank's shards
  const Tensor p, q;           ///< their means over all shards
  const Workspace work;
};

void PowerSgd::reduce(GradientBucket& bucket) {
  sum_others(bucket);
  std::vector<Place> places;
  std::int64_t p_size = 0, q_size = 0, longest = 0;
  for (const GradientBucket::Entry& entry : bucket.entries()) {
    const auto found = matrices_.find(entry.name);
    if (found == matrices_.end()) continue;
    const Matrix& matrix = found->second;
    places.push_back({&matrix, static_cast<std::int64_t>(entry.offset), p_size, q_size});
    p_size += matrix.rank * matrix.rows;
    q_size += matrix.rank * matrix.columns;
    longest = std::max({longest, matrix.rows, matrix.columns});
  }
  if (places.empty()) return;
  const auto x = std::make_shared<const Exchange>(std::move(places), p_size, q_size, longest, range_.size(),
                                                  bucket.comm().device());
  bucket.run([x, parts = bucket.parts()] { project(*x, parts); });
  bucket.sum(x->ps, x->p, 1.0 / shards_);
  bucket.run([x] { project_back(*x); });
  bucket.sum(x->qs, x->q, 1.0 / shards_);
  bucket.run([x, mean = bucket.mean()] { decompress(*x, mean); });
}

/// Computes p = (the error of earlier steps + the gradient) times q.
void PowerSgd::project(const Exchange& x, const std::vector<Tensor>& parts) {
  for (const Place& at : x.places) {
    const auto [n, m, r, q, error] = *at.matrix;
    for (std::size_t s = 0; s < parts.size(); ++s) {
      const View left = matrix_at(error, static_cast<std::int64_t>(s) * n * m, n, m);
      x.kernels.binary(BinaryOp::add, left, left, matrix_at(parts[s], at.gradient, n, m));
      x.kernels.matmul(matrix_at(x.ps[s], at.p, r, n), matrix_at(q, 0, r, m), transposed(left), nullptr);
    }
  }
}

/// Makes p orthonormal and computes q = (error + gradient), transposed, times p.
void PowerSgd::project_back(const Exchange& x) {
  for (const Place& at : x.places) {
    const auto [n, m, r, q, error] = *at.matrix;
    const View p = matrix_at(x.p, at.p, r, n);
    make_orthonormal(x.kernels, p, x.work);
    for (std::size_t s = 0; s < x.qs.size(); ++s)
      x.kernels.matmul(matrix_at(x.qs[s], at.q, r, m), p,
                       matrix_at(error, static_cast<std::int64_t>(s) * n * m, n, m), nullptr);
  }
}

/// Computes mean = p times q, subtracts it from the errors, and keeps q for the next step.
void PowerSgd::decompress(const Exchange& x, const Tensor& mean) {
  for (const Place& at : x.places) {
    const auto [n, m, r, q, error] = *at.matrix;
    const View product = matrix_at(mean, at.gradient, n, m), next = matrix_at(x.q, at.q, r, m);
    x.kernels.matmul(product, transposed(matrix_at(x.p, at.p, r, n)), next, nullptr);
    for (std::int64_t s = 0; s < error.size(0); ++s) {
      const View left = matrix_at(error, s * n * m, n, m);
      x.kernels.binary(BinaryOp::sub, left, left, product);
    }
    // Of a gradient of zeros nothing is learned, and from a row of zeros nothing would ever be.
    for (std::int64_t k = 0; k < r; ++k) {
      const View row = row_of(next, k), kept = row_of(matrix_at(q, 0, r, m), k), is_used = x.work.flag.view();
      dot(x.kernels, x.work.number.view(), row, row, vector_at(x.work.row, 0, m));
      x.kernels.compare(CompareOp::gt, is_used, x.work.number.view(), x.work.zero.view());
      x.kernels.where(kept, repeated(is_used, m), row, kept);
    }
  }
}

}  // namespace trireme
