// A row is a line, however long.
// clang-format off
// Op test table: reductions and ops that move elements.
#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/support/op_table.h"

namespace trireme::test {

namespace {

/// Returns an array of the given shape whose element at each index is x[source(index)].
Array gather(const Array& x, const Shape& shape,
             const std::function<std::vector<std::int64_t>(std::vector<std::int64_t>)>& source) {
  Array y(shape);
  for (std::int64_t i = 0; i < y.size(); ++i) y[i] = x.at(source(index_of(i, shape)));
  return y;
}

OpRow row_of(const std::string& declaration) { return {.declaration = declaration, .takes = Takes::kAnything}; }

OpRow reshape_row() {
  OpRow row = row_of("reshape(Tensor, Shape)");
  const auto add_case = [&](const Shape& from, const Shape& to, const Shape& result) {
    row.cases.push_back(moving(from, [to](const Tensor& x) { return reshape(x, to); },
                               [result](const Array& x) { return same_order(x, result); }));
  };
  add_case({2, 6}, {3, 4}, {3, 4});
  add_case({2, 3, 4}, {-1, 2}, {12, 2});
  add_case({2, 1, 3}, {6}, {6});
  add_case({4, 1}, {2, 2}, {2, 2});
  add_case({2, 3, 1, 2}, {2, 1, 6}, {2, 1, 6});
  add_case({}, {1, 1}, {1, 1});
  add_case({0, 3}, {3, 0, 2}, {3, 0, 2});
  // Reshape a view whose dimension of size 1 has a stride that does not fit its neighbours.
  row.cases.push_back(moving({4, 2, 3}, [](const Tensor& x) { return reshape(narrow(x, 1, 1, 1), {12}); }, [](const Array& x) {
    return gather(x, {12}, [](auto i) { return std::vector<std::int64_t>{i[0] / 3, 1, i[0] % 3}; });
  }));
  row.cases.push_back(moving({4, 5}, [](const Tensor& x) { return reshape(narrow(x, 1, 2, 1), {2, 2}); }, [](const Array& x) {
    return gather(x, {2, 2}, [](auto i) { return std::vector<std::int64_t>{i[0] * 2 + i[1], 2}; });
  }));
  row.bad.push_back({[] { reshape(Tensor::zeros({2, 3}), {4, 2}); }, {"reshape:", "(2, 3)", "(4, 2)"}});
  row.bad.push_back({[] { reshape(Tensor::zeros({2, 3}), {-1, 4}); }, {"reshape:", "(2, 3)", "(-1, 4)"}});
  row.bad.push_back({[] { reshape(Tensor::zeros({2, 3}), {-1, -1}); }, {"reshape:", "(-1, -1)"}});
  return row;
}

OpRow flatten_row() {
  OpRow row = row_of("flatten(Tensor, int, int)");
  const auto add_case = [&](const Shape& from, int first, int last, const Shape& to) {
    row.cases.push_back(moving(from, [=](const Tensor& x) { return flatten(x, first, last); },
                               [to](const Array& x) { return same_order(x, to); }));
  };
  add_case({2, 3, 4}, 0, -1, {24});
  add_case({2, 3, 2, 2}, 1, -1, {2, 12});
  add_case({2, 3, 4}, 0, 1, {6, 4});
  add_case({}, 0, -1, {1});
  add_case({0, 3}, 0, -1, {0});
  row.bad.push_back({[] { flatten(Tensor::zeros({2, 3}), 1, 0); }, {"flatten:", "dimension 1", "0"}});
  row.bad.push_back({[] { flatten(Tensor::zeros({2, 3}), 2); }, {"flatten:", "dimension 2"}});
  return row;
}

OpRow permute_row() {
  OpRow row = row_of("permute(Tensor, std::vector<int>)");
  row.cases = {moving({2, 3, 4}, [](const Tensor& x) { return permute(x, {2, 0, -2}); },
                      [](const Array& x) {
                        return gather(x, {4, 2, 3}, [](auto i) { return std::vector<std::int64_t>{i[1], i[2], i[0]}; });
                      }),
               moving({}, [](const Tensor& x) { return permute(x, {}); }, [](const Array& x) { return x; }),
               moving({0, 2}, [](const Tensor& x) { return permute(x, {1, 0}); }, [](const Array&) { return Array({2, 0}); })};
  row.bad.push_back({[] { permute(Tensor::zeros({2, 3}), {0}); }, {"permute:", "(2, 3)", "1"}});
  row.bad.push_back({[] { permute(Tensor::zeros({2, 3}), {0, 0}); }, {"permute:", "twice"}});
  return row;
}

OpRow transpose_row() {
  OpRow row = row_of("transpose(Tensor, int, int)");
  row.cases = {moving({2, 3, 4}, [](const Tensor& x) { return transpose(x, 0, -1); },
                      [](const Array& x) {
                        return gather(x, {4, 3, 2}, [](auto i) { return std::vector<std::int64_t>{i[2], i[1], i[0]}; });
                      }),
               moving({2, 2}, [](const Tensor& x) { return transpose(x, 1, 1); }, [](const Array& x) { return x; }),
               moving({0, 2}, [](const Tensor& x) { return transpose(x, 0, 1); }, [](const Array&) { return Array({2, 0}); })};
  row.bad.push_back({[] { transpose(Tensor::zeros({2, 3}), 0, 2); }, {"transpose:", "dimension 2"}});
  return row;
}

OpRow expand_row() {
  OpRow row = row_of("expand(Tensor, Shape)");
  for (const auto& [from, to] : {std::pair{Shape{3, 1}, Shape{2, 3, 4}}, {Shape{}, Shape{2, 2}}, {Shape{2, 3}, Shape{2, 3}},
                                 {Shape{1, 3}, Shape{0, 3}}})
    row.cases.push_back(moving(from, [to = to](const Tensor& x) { return expand(x, to); },
                               [to = to](const Array& x) { return gather(x, to, [](auto i) { return i; }); }));
  row.bad.push_back({[] { expand(Tensor::zeros({2, 3}), {2, 4}); }, {"expand:", "(2, 3)", "(2, 4)"}});
  row.bad.push_back({[] { expand(Tensor::zeros({2, 3}), {3}); }, {"expand:", "(2, 3)", "(3)"}});
  return row;
}

OpRow narrow_row() {
  OpRow row = row_of("narrow(Tensor, int, std::int64_t, std::int64_t)");
  row.cases = {moving({3, 5}, [](const Tensor& x) { return narrow(x, -1, 1, 3); },
                      [](const Array& x) {
                        return gather(x, {3, 3}, [](auto i) { return std::vector<std::int64_t>{i[0], i[1] + 1}; });
                      }),
               moving({3, 2}, [](const Tensor& x) { return narrow(x, 0, 2, 1); },
                      [](const Array& x) {
                        return gather(x, {1, 2}, [](auto i) { return std::vector<std::int64_t>{2, i[1]}; });
                      }),
               moving({3, 2}, [](const Tensor& x) { return narrow(x, 0, 3, 0); }, [](const Array&) { return Array({0, 2}); })};
  row.bad.push_back({[] { narrow(Tensor::zeros({3, 5}), 1, 3, 3); }, {"narrow:", "3 elements from 3", "(3, 5)"}});
  row.bad.push_back({[] { narrow(Tensor::zeros({}), 0, 0, 1); }, {"narrow:", "()"}});
  return row;
}

OpRow cat_row() {
  OpRow row = row_of("cat(std::vector<Tensor>, int)");
  const auto call = [](const Tensors& in) { return cat(in, -1); };
  row.cases = {{"three", {{{2, 1}}, {{2, 3}}, {{2, 0}}}, call,
                [](const Arrays& in) {
                  Array y({2, 4});
                  for (std::int64_t i = 0; i < 2; ++i) {
                    y[i * 4] = in[0][i];
                    for (std::int64_t k = 0; k < 3; ++k) y[i * 4 + 1 + k] = in[1][i * 3 + k];
                  }
                  return y;
                }},
               {"one", {{{3}}}, call, [](const Arrays& in) { return in[0]; }},
               {"first dimension", {{{1, 2}}, {{2, 2}}}, [](const Tensors& in) { return cat(in, 0); }, [](const Arrays& in) {
                  Array y({3, 2});
                  for (std::int64_t i = 0; i < 6; ++i) y[i] = i < 2 ? in[0][i] : in[1][i - 2];
                  return y;
                }}};
  row.bad.push_back({[] { cat({Tensor::zeros({2, 3}), Tensor::zeros({3, 3})}, 1); }, {"cat:", "(2, 3)", "(3, 3)"}});
  row.bad.push_back({[] { cat({}, 0); }, {"cat:", "no tensors"}});
  return row;
}

}  // namespace

std::vector<OpRow> shape_rows() {
  std::vector<OpRow> rows{reshape_row(), flatten_row(), permute_row(), transpose_row(), expand_row(), narrow_row(), cat_row()};
  OpRow squeezing = row_of("squeeze(Tensor, int)"), unsqueezing = row_of("unsqueeze(Tensor, int)");
  for (const auto& [from, dim, to] : {std::tuple{Shape{2, 1, 3}, 1, Shape{2, 3}}, {Shape{2, 3}, -1, Shape{2, 3}}, {Shape{1, 0}, 0, Shape{0}}})
    squeezing.cases.push_back(moving(from, [dim = dim](const Tensor& x) { return squeeze(x, dim); },
                                     [to = to](const Array& x) { return same_order(x, to); }));
  squeezing.bad.push_back({[] { squeeze(Tensor::zeros({2, 1}), 2); }, {"squeeze:", "dimension 2"}});
  for (const auto& [from, dim, to] : {std::tuple{Shape{2, 3}, 1, Shape{2, 1, 3}}, {Shape{2, 3}, -1, Shape{2, 3, 1}}, {Shape{}, 0, Shape{1}}})
    unsqueezing.cases.push_back(moving(from, [dim = dim](const Tensor& x) { return unsqueeze(x, dim); },
                                       [to = to](const Array& x) { return same_order(x, to); }));
  unsqueezing.bad.push_back({[] { unsqueeze(Tensor::zeros({2, 1}), 4); }, {"unsqueeze:", "dimension 4"}});
  OpRow dense = row_of("contiguous(Tensor)"), images = row_of("channels_last(Tensor)"), converting = row_of("to(Tensor, DType)");
  for (const Shape& shape : {Shape{3, 4}, Shape{}, Shape{0, 3}, Shape{2, 3, 2, 2}})
    dense.cases.push_back(moving(shape, contiguous, [](const Array& x) { return x; }));
  for (const Shape& shape : {Shape{2, 3, 2, 2}, Shape{0, 3, 2, 2}, Shape{2, 1, 2, 2}, Shape{2, 3, 1, 1}})
    images.cases.push_back(moving(shape, channels_last, [](const Array& x) { return x; }));
  images.bad.push_back({[] { channels_last(Tensor::zeros({2, 3})); }, {"channels_last:", "(2, 3)", "4 dimensions"}});
  for (const Shape& shape : {Shape{3, 4}, Shape{}, Shape{0, 3}})
    converting.cases.push_back(moving(shape, [](const Tensor& x) { return x.defined() ? to(x, x.dtype()) : to(x, DType::kInt64); },
                                      [](const Array& x) { return x; }));
  OpRow moving_away = row_of("to(Tensor, Device)");
  moving_away.cases.push_back(moving({3, 4}, [](const Tensor& x) { return to(x, kCpu); }, [](const Array& x) { return x; }));
  for (OpRow* row : {&squeezing, &unsqueezing, &dense, &images, &converting, &moving_away}) rows.push_back(*row);
  return rows;
}

}  // namespace trireme::test
