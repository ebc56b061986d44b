// Gathering and scattering along the middle of three dimensions, sorting, and positions. Whoever adds to a
// place does so alone and in the order of the index, so bits depend on nothing else.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"

namespace trireme::cuda {

namespace {

/// A view with three dimensions.
template <class T>
struct Cube {
  T* data;
  std::int64_t shape[3], strides[3];
  explicit Cube(const View& v) : data(v.as<T>()) {
    for (int d = 0; d < 3; ++d) {
      shape[d] = v.shape[d];
      strides[d] = v.strides[d];
    }
  }
  TRIREME_HOST_DEVICE T& at(std::int64_t o, std::int64_t i, std::int64_t j) const {
    return data[o * strides[0] + i * strides[1] + j * strides[2]];
  }
};

template <class T>
struct Gather {
  Cube<T> out, in;
  Cube<std::int64_t> index;
  TRIREME_HOST_DEVICE void operator()(std::int64_t k) const {
    const std::int64_t j = k % out.shape[2], i = k / out.shape[2] % out.shape[1],
                       o = k / out.shape[2] / out.shape[1];
    out.at(o, i, j) = in.at(o, index.at(o, i, j), j);
  }
};

/// A thread for each (o, j) walks along i.
template <class T, bool kAdd>
struct Scatter {
  Cube<T> out, in;
  Cube<std::int64_t> index;
  TRIREME_HOST_DEVICE void operator()(std::int64_t k) const {
    const std::int64_t j = k % in.shape[2], o = k / in.shape[2];
    for (std::int64_t i = 0; i < in.shape[1]; ++i) {
      T& element = out.at(o, index.at(o, i, j), j);
      if constexpr (kAdd)
        element = static_cast<T>(static_cast<Compute<T>>(element) + static_cast<Compute<T>>(in.at(o, i, j)));
      else
        element = in.at(o, i, j);
    }
  }
};

constexpr std::int64_t kFewPlaces = 64;           ///< no more are walked along one by one
constexpr std::int64_t kMostCounted = 16 * 1024;  ///< more are sorted

/// order[r] = the place whose index is the r-th, equal ones in the order of places; a warp for each place.
struct RankByCounting {
  const std::int64_t* index;
  std::int64_t count;
  std::int64_t* order;
  TRIREME_HOST_DEVICE void operator()(std::int64_t i, const Warp& warp) const {
    std::int64_t before = 0;
    for (std::int64_t k = warp.lane(); k < count; k += kWarp)
      before += index[k] < index[i] || (index[k] == index[i] && k < i) ? 1 : 0;
    before = warp.sum(before);
    if (warp.lane() == 0) order[before] = i;
  }
};

/// Scatter where index depends on i alone: a thread for each (r, o, j) whose r begins a run of one index
/// walks along that run.
template <class T, bool kAdd>
struct ScatterRuns {
  Cube<T> out, in;
  const std::int64_t *index, *order;
  TRIREME_HOST_DEVICE void operator()(std::int64_t k) const {
    const std::int64_t j = k % in.shape[2], o = k / in.shape[2] % in.shape[0],
                       begin = k / in.shape[2] / in.shape[0], to = index[order[begin]];
    if (begin > 0 && index[order[begin - 1]] == to) return;
    T& element = out.at(o, to, j);
    T sum = element;
    for (std::int64_t r = begin; r < in.shape[1] && index[order[r]] == to; ++r) {
      const T next = in.at(o, order[r], j);
      if constexpr (kAdd)
        sum = static_cast<T>(static_cast<Compute<T>>(sum) + static_cast<Compute<T>>(next));
      else
        sum = next;
    }
    element = sum;
  }
};

struct FirstOrder {
  std::int64_t* order;
  std::int64_t padded;
  TRIREME_HOST_DEVICE void operator()(std::int64_t i) const { order[i] = i % padded; }
};

/// One comparison of a bitonic sort (K. Batcher, "Sorting networks and their applications", 1968) of rows of
/// padded length. Places behind a row's end are larger than all; equal elements keep their order.
template <class T>
struct SortStage {
  const T* in;
  std::int64_t* order;
  std::int64_t width, padded, block, distance;
  bool descending;

  TRIREME_HOST_DEVICE bool is_less(Compute<T> p, Compute<T> q) const { return p < q || (p == p && q != q); }
  TRIREME_HOST_DEVICE bool comes_first(const T* x, std::int64_t a, std::int64_t b) const {
    if (a >= width || b >= width) return a < b;
    const auto p = static_cast<Compute<T>>(x[a]), q = static_cast<Compute<T>>(x[b]);
    if (descending ? is_less(q, p) : is_less(p, q)) return true;
    if (descending ? is_less(p, q) : is_less(q, p)) return false;
    return a < b;
  }
  TRIREME_HOST_DEVICE void operator()(std::int64_t i) const {
    const std::int64_t half = padded / 2, row = i / half, k = i % half;
    const std::int64_t low = k / distance * 2 * distance + k % distance, high = low + distance;
    std::int64_t* at = order + row * padded;
    const bool rising = (low & block) == 0;
    if (comes_first(in + row * width, at[high], at[low]) == rising) {
      const std::int64_t kept = at[low];
      at[low] = at[high];
      at[high] = kept;
    }
  }
};

struct TakeOrder {
  const std::int64_t* order;
  std::int64_t* out;
  std::int64_t width, padded;
  TRIREME_HOST_DEVICE void operator()(std::int64_t i) const {
    out[i] = order[i / width * padded + i % width];
  }
};

constexpr std::int64_t kPart = 1024;  // of a mask

struct CountTrue {
  const bool* mask;
  std::int64_t count;
  std::int64_t* counts;
  TRIREME_HOST_DEVICE void operator()(std::int64_t p) const {
    std::int64_t n = 0;
    for (std::int64_t i = p * kPart; i < (p + 1) * kPart && i < count; ++i) n += mask[i] ? 1 : 0;
    counts[p] = n;
  }
};

/// Counts become what came before; one thread, over a thousandth of the elements.
struct StartOfParts {
  std::int64_t* counts;
  std::int64_t parts;
  TRIREME_HOST_DEVICE void operator()(std::int64_t) const {
    std::int64_t before = 0;
    for (std::int64_t p = 0; p < parts; ++p) {
      const std::int64_t n = counts[p];
      counts[p] = before;
      before += n;
    }
  }
};

struct WriteTrue {
  const bool* mask;
  std::int64_t count;
  const std::int64_t* starts;
  std::int64_t* out;
  TRIREME_HOST_DEVICE void operator()(std::int64_t p) const {
    std::int64_t at = starts[p];
    for (std::int64_t i = p * kPart; i < (p + 1) * kPart && i < count; ++i)
      if (mask[i]) out[at++] = i;
  }
};

}  // namespace

void gather(const View& out, const View& in, const View& index) {
  visit_dtype(in.dtype, [&](auto type) {
    using T = decltype(type);
    parallel_for(out.numel(), Gather<T>{Cube<T>(out), Cube<T>(in), Cube<std::int64_t>(index)});
  });
}

namespace {

/// A thread for each column; or, where one index serves whole rows (the gradient of an embedding), one for
/// each run of equal indices in each column. The same additions in the same order either way.
template <class T, bool kAdd>
void scatter_as(const View& out, const View& index, const View& in) {
  const std::int64_t places = in.shape[1];
  const auto is_shared = [&](int d) { return index.shape[d] == 1 || index.strides[d] == 0; };
  if (places <= kFewPlaces || !is_shared(0) || !is_shared(2))
    return parallel_for(in.shape[0] * in.shape[2],
                        Scatter<T, kAdd>{Cube<T>(out), Cube<T>(in), Cube<std::int64_t>(index)});
  const Scratch list(static_cast<std::size_t>(places) * sizeof(std::int64_t)),
      order(static_cast<std::size_t>(places) * sizeof(std::int64_t));
  const View row{list.as<void>(), DType::kInt64, 2, {1, places}, {places, 1}};
  copy(row, {index.data, DType::kInt64, 2, {1, places}, {0, index.strides[1]}});
  if (places <= kMostCounted) {
    parallel_warps(places, RankByCounting{list.as<std::int64_t>(), places, order.as<std::int64_t>()});
  } else {
    View sorted = row;
    sorted.data = order.as<void>();
    argsort(sorted, row, false);
  }
  parallel_for(in.numel(), ScatterRuns<T, kAdd>{Cube<T>(out), Cube<T>(in), list.as<std::int64_t>(),
                                                order.as<std::int64_t>()});
}

}  // namespace

void scatter(ScatterOp op, const View& out, const View& index, const View& in) {
  visit_dtype(out.dtype, [&](auto type) {
    using T = decltype(type);
    if (op == ScatterOp::kSet) return scatter_as<T, false>(out, index, in);
    if constexpr (std::is_same_v<T, bool>)
      fail(ExitCode::kInternal, "scatter_add: not defined for bool; convert it with to() first");
    else
      scatter_as<T, true>(out, index, in);
  });
}

void argsort(const View& out, const View& in, bool descending) {
  const std::int64_t rows = in.shape[0], width = in.shape[1];
  if (rows * width == 0) return;
  std::int64_t padded = 2;
  while (padded < width) padded *= 2;
  const Scratch order(static_cast<std::size_t>(rows * padded) * sizeof(std::int64_t));
  visit_dtype(in.dtype, [&](auto type) {
    using T = decltype(type);
    parallel_for(rows * padded, FirstOrder{order.as<std::int64_t>(), padded});
    for (std::int64_t block = 2; block <= padded; block *= 2)
      for (std::int64_t distance = block / 2; distance > 0; distance /= 2)
        parallel_for(rows * padded / 2, SortStage<T>{in.as<T>(), order.as<std::int64_t>(), width, padded,
                                                     block, distance, descending});
  });
  parallel_for(rows * width, TakeOrder{order.as<std::int64_t>(), out.as<std::int64_t>(), width, padded});
}

void nonzero(const View& out, const View& mask) {
  const std::int64_t count = mask.shape[0], parts = (count + kPart - 1) / kPart;
  const Scratch counts(static_cast<std::size_t>(parts) * sizeof(std::int64_t));
  parallel_for(parts, CountTrue{mask.as<bool>(), count, counts.as<std::int64_t>()});
  parallel_for(1, StartOfParts{counts.as<std::int64_t>(), parts});
  parallel_for(parts, WriteTrue{mask.as<bool>(), count, counts.as<std::int64_t>(), out.as<std::int64_t>()});
}

}  // namespace trireme::cuda
