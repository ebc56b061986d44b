// Matrix products.
#include <algorithm>
#include <map>
#include <string>

#include "core/amp/autocast.h"
#include "core/autograd/autograd.h"
#include "core/ops/check.h"
#include "core/ops/ops.h"

namespace trireme {

namespace {

/// BLAS wants rows or columns dense; anything else is copied first.
Tensor dense_matrix(const Tensor& t) {
  const int d = t.dim();
  const std::int64_t rows = t.shape()[d - 2], columns = t.shape()[d - 1], sr = t.strides()[d - 2],
                     sc = t.strides()[d - 1];
  const bool row_major = (sc == 1 || columns == 1) && (rows == 1 || sr >= columns);
  const bool column_major = (sr == 1 || rows == 1) && (columns == 1 || sc >= rows);
  return row_major || column_major ? t : t.row_major();
}

/// A matrix as a batch of one.
View as_batch(const Tensor& t) {
  View v = t.view();
  if (v.dims == 3) return v;
  View wide = v;
  wide.dims = 3;
  wide.shape[0] = 1;
  wide.strides[0] = 0;
  for (int d = 0; d < 2; ++d) {
    wide.shape[d + 1] = v.shape[d];
    wide.strides[d + 1] = v.strides[d];
  }
  return wide;
}

Tensor multiplied(const char* name, const Tensor& a, const Tensor& b, const Tensor& memory = {});

bool lies_in_columns(const Tensor& t) { return t.strides()[t.dim() - 1] > t.strides()[t.dim() - 2]; }

/// a @ b, in rows or in columns. A gradient that lies as what it belongs to is never copied.
Tensor multiplied_in(const char* name, bool columns, const Tensor& a, const Tensor& b,
                     const Tensor& memory = {}) {
  if (!columns) return multiplied(name, a, b, memory);
  return transpose(multiplied(name, transpose(b, -1, -2), transpose(a, -1, -2)), -1, -2);
}

/// (M,K) @ (K,N) or (B,M,K) @ (B,K,N), to `memory` where that is given, a row-major matrix.
Tensor multiplied(const char* name, const Tensor& a, const Tensor& b, const Tensor& memory) {
  if (is_widened(a)) return to(multiplied(name, to(a, DType::kFloat32), to(b, DType::kFloat32)), a.dtype());
  Shape shape = a.shape();
  shape[a.dim() - 1] = b.size(-1);
  const Tensor out = memory.defined() ? memory : Tensor::empty(shape, a.dtype(), a.device()),
               x = dense_matrix(a), y = dense_matrix(b);
  kernels(a).matmul(as_batch(out), as_batch(x), as_batch(y), nullptr);
  return record(
      name, out, {&a, &b},
      [name, a = Saved(a), b = Saved(b), a_in_columns = lies_in_columns(a),
       b_in_columns = lies_in_columns(b)](Backward& g) {
        if (g.needs(0)) g.set(0, multiplied_in(name, a_in_columns, g.grad, transpose(g.get(b), -1, -2)));
        if (g.needs(1))
          g.set(1, multiplied_in(name, b_in_columns, transpose(g.get(a), -1, -2), g.grad, g.memory_for(1)));
      });
}

/// x (M,K) @ w (N,K) transposed, + b (N) unless it is undefined.
Tensor linear_rows(const Tensor& x, const Tensor& w, const Tensor& b) {
  if (is_widened(x)) {
    const auto wide = [](const Tensor& t) { return t.defined() ? to(t, DType::kFloat32) : t; };
    return to(linear_rows(wide(x), wide(w), wide(b)), x.dtype());
  }
  const Tensor out = Tensor::empty({x.size(0), w.size(0)}, x.dtype(), x.device());
  const Tensor in = dense_matrix(x), weight = dense_matrix(w.detach()),
               shift = b.defined() ? b.row_major() : Tensor();
  const View bias = b.defined() ? shift.view() : View{};
  kernels(x).matmul(as_batch(out), as_batch(in), as_batch(transpose(weight, 0, 1)),
                    b.defined() ? &bias : nullptr);
  return record(
      "linear", out, {&x, &w, &b},
      [x = Saved(x), w = Saved(w), in_columns = lies_in_columns(w)](Backward& g) {
        if (g.needs(0)) g.set(0, multiplied("linear", g.grad, g.get(w)));
        if (g.needs(1))
          g.set(1, multiplied_in("linear", in_columns, transpose(g.grad, 0, 1), g.get(x), g.memory_for(1)));
        if (g.needs(2)) g.set(2, sum(g.grad, {0}));
      });
}

}  // namespace

Tensor bmm(const Tensor& a, const Tensor& b) {
  if (const amp::Cast c("bmm", {&a, &b}); c) return bmm(c[0], c[1]);
  check_same_kind("bmm", {&a, &b});
  check_floating("bmm", a);
  TRIREME_CHECK(a.dim() == 3 && b.dim() == 3 && a.size(0) == b.size(0) && a.size(2) == b.size(1),
                "bmm: shapes {} and {} do not fit; needs (B,M,K) and (B,K,N)", a.shape().to_string(),
                b.shape().to_string());
  return multiplied("bmm", a, b);
}

Tensor matmul(const Tensor& a, const Tensor& b) {
  if (const amp::Cast c("matmul", {&a, &b}); c) return matmul(c[0], c[1]);
  check_same_kind("matmul", {&a, &b});
  check_floating("matmul", a);
  const bool fits = a.dim() >= 1 && b.dim() >= 1 && a.size(-1) == b.size(b.dim() == 1 ? 0 : -2);
  TRIREME_CHECK(fits, "matmul: shapes {} and {} do not fit; needs (..., M,K) @ (..., K,N) or vectors of K",
                a.shape().to_string(), b.shape().to_string());
  if (a.dim() == 2 && b.dim() == 2) return multiplied("matmul", a, b);
  const Tensor x = a.dim() == 1 ? unsqueeze(a, 0) : a, y = b.dim() == 1 ? unsqueeze(b, 1) : b;
  const std::int64_t m = x.size(-2), k = x.size(-1), n = y.size(-1);
  Shape batch_x, batch_y;
  for (int d = 0; d + 2 < x.dim(); ++d) batch_x.push_back(x.shape()[d]);
  for (int d = 0; d + 2 < y.dim(); ++d) batch_y.push_back(y.shape()[d]);
  TRIREME_CHECK(can_broadcast(batch_x, batch_y),
                "matmul: shapes {} and {} do not fit; the dimensions before the last two must broadcast",
                a.shape().to_string(), b.shape().to_string());
  Shape shape = broadcast_shapes(batch_x, batch_y, "matmul");
  const std::int64_t count = shape.numel();
  const auto spread = [&](const Tensor& t, std::int64_t rows, std::int64_t columns) {
    Shape wide = shape;
    wide.push_back(rows);
    wide.push_back(columns);
    return reshape(expand(t, wide), {count, rows, columns});
  };
  Tensor out;
  if (y.dim() == 2 && x.dim() > 2)  // one matrix for all rows: a single product
    out = multiplied("matmul", reshape(x, {count * m, k}), y);
  else
    out = multiplied("matmul", spread(x, m, k), spread(y, k, n));
  if (a.dim() > 1) shape.push_back(m);
  if (b.dim() > 1) shape.push_back(n);
  return reshape(out, shape);
}

Tensor linear(const Tensor& x, const Tensor& w, const Tensor& b) {
  if (const amp::Cast c("linear", {&x, &w, &b}); c) return linear(c[0], c[1], c[2]);
  check_same_kind("linear", {&x, &w});
  check_floating("linear", x);
  check_dims("linear", "w (out, in)", w, 2);
  TRIREME_CHECK(x.dim() >= 1 && x.size(-1) == w.size(1),
                "linear: x {} does not fit w {}; x's last size must be {}", x.shape().to_string(),
                w.shape().to_string(), w.size(1));
  Shape shape = x.shape();
  shape[shape.size() - 1] = w.size(0);
  std::int64_t count = 1;
  for (int d = 0; d + 1 < x.dim(); ++d) count *= x.shape()[d];
  const Tensor rows = reshape(x, {count, x.size(-1)});
  if (b.defined()) {
    check_same_kind("linear", {&x, &b});
    TRIREME_CHECK(b.dim() == 1 && b.size(0) == w.size(0), "linear: b {} does not fit w {}; needs ({})",
                  b.shape().to_string(), w.shape().to_string(), w.size(0));
  }
  return reshape(linear_rows(rows, w, b), shape);
}

namespace {

/// An operand of einsum whose dimensions have letters.
struct Lettered {
  Tensor tensor;
  std::string letters;
};

/// Repeated letters become their diagonal; letters outside of `kept` are summed away.
Lettered simplified(Lettered t, const std::string& kept) {
  for (std::size_t i = 0; i < t.letters.size(); ++i)
    if (const std::size_t again = t.letters.find(t.letters[i], i + 1); again != std::string::npos) {
      t.tensor = diagonal(t.tensor, 0, static_cast<int>(i), static_cast<int>(again));
      t.letters = t.letters.substr(0, i) + t.letters.substr(i + 1, again - i - 1) +
                  t.letters.substr(again + 1) + t.letters[i];
      i = static_cast<std::size_t>(-1);  // letters moved: look again
    }
  std::vector<int> gone;
  std::string letters;
  for (std::size_t i = 0; i < t.letters.size(); ++i)
    if (kept.find(t.letters[i]) == std::string::npos)
      gone.push_back(static_cast<int>(i));
    else
      letters += t.letters[i];
  return {gone.empty() ? t.tensor : sum(t.tensor, gone), letters};
}

Tensor ordered(const Lettered& t, const std::string& letters) {
  std::vector<int> order;
  for (const char letter : letters) order.push_back(static_cast<int>(t.letters.find(letter)));
  return permute(t.tensor, order);
}

/// Sums over what both have and `kept` has not, as one batched matrix product.
Lettered contracted(const Lettered& a, const Lettered& b, const std::string& kept) {
  std::string batch, rows, columns, both;
  std::map<char, std::int64_t> size;
  for (std::size_t i = 0; i < a.letters.size(); ++i)
    size[a.letters[i]] = a.tensor.shape()[static_cast<int>(i)];
  for (std::size_t i = 0; i < b.letters.size(); ++i)
    size[b.letters[i]] = b.tensor.shape()[static_cast<int>(i)];
  for (const char letter : a.letters) {
    const bool shared = b.letters.find(letter) != std::string::npos;
    (!shared ? rows : kept.find(letter) != std::string::npos ? batch : both) += letter;
  }
  for (const char letter : b.letters)
    if (a.letters.find(letter) == std::string::npos) columns += letter;
  const auto numel = [&](const std::string& letters) {
    std::int64_t n = 1;
    for (const char letter : letters) n *= size[letter];
    return n;
  };
  const Tensor x = reshape(ordered(a, batch + rows + both), {numel(batch), numel(rows), numel(both)});
  const Tensor y = reshape(ordered(b, batch + both + columns), {numel(batch), numel(both), numel(columns)});
  Shape shape;
  for (const char letter : batch + rows + columns) shape.push_back(size[letter]);
  return {reshape(multiplied("einsum", x, y), shape), batch + rows + columns};
}

/// "ab,bc->ac" as operands' letters and the result's.
std::string parse(const std::string& equation, std::size_t operands, std::vector<std::string>& inputs) {
  std::string text;
  std::copy_if(equation.begin(), equation.end(), std::back_inserter(text), [](char c) { return c != ' '; });
  const std::size_t arrow = text.find("->");
  const std::string left = text.substr(0, arrow);
  inputs.emplace_back();
  for (const char c : left) {
    if (c == ',')
      inputs.emplace_back();
    else
      inputs.back() += c;
    TRIREME_CHECK(c == ',' || std::isalpha(static_cast<unsigned char>(c)),
                  "einsum: '{}' in \"{}\" is no letter", c, equation);
  }
  TRIREME_CHECK(inputs.size() == operands, "einsum: \"{}\" names {} operands, {} were given", equation,
                inputs.size(), operands);
  if (arrow != std::string::npos) return text.substr(arrow + 2);
  // Without an arrow: the letters that appear once, sorted.
  std::string result;
  for (char c = 'A'; c <= 'z'; ++c)
    if (std::count(left.begin(), left.end(), c) == 1 && std::isalpha(static_cast<unsigned char>(c)))
      result += c;
  return result;
}

}  // namespace

Tensor einsum(const std::string& equation, const std::vector<Tensor>& operands) {
  std::vector<std::string> letters;
  const std::string result = parse(equation, operands.size(), letters);
  std::map<char, std::int64_t> size;
  for (std::size_t i = 0; i < operands.size(); ++i) {
    check_same_kind("einsum", {&operands[0], &operands[i]});
    check_floating("einsum", operands[i]);
    TRIREME_CHECK(operands[i].dim() == static_cast<int>(letters[i].size()),
                  "einsum: \"{}\" gives {} letters to shape {}", equation, letters[i].size(),
                  operands[i].shape().to_string());
    for (std::size_t d = 0; d < letters[i].size(); ++d) {
      const std::int64_t n = operands[i].shape()[static_cast<int>(d)];
      const auto known = size.emplace(letters[i][d], n).first;
      TRIREME_CHECK(known->second == n,
                    "einsum: '{}' in \"{}\" is {} and, in operand {} of shape {}, {}; it must be one size",
                    letters[i][d], equation, known->second, i, operands[i].shape().to_string(), n);
    }
  }
  for (const char c : result)
    TRIREME_CHECK(size.contains(c) && std::count(result.begin(), result.end(), c) == 1,
                  "einsum: '{}' of the result in \"{}\" must be a letter of one operand, once", c, equation);
  Lettered done;
  for (std::size_t i = 0; i < operands.size(); ++i) {
    std::string later = result;
    for (std::size_t k = i + 1; k < operands.size(); ++k) later += letters[k];
    const Lettered next = simplified({operands[i], letters[i]}, i == 0 ? later : later + done.letters);
    done = i == 0 ? next : simplified(contracted(done, next, later), later);
  }
  return ordered(simplified(done, result), result);
}

}  // namespace trireme
