#include "tests/support/op_table.h"

#include <fstream>
#include <regex>
#include <sstream>

#include "tests/support/source_dir.h"

namespace trireme::test {

std::vector<std::int64_t> index_of(std::int64_t i, const Shape& shape) {
  std::vector<std::int64_t> index(static_cast<std::size_t>(shape.size()));
  for (int d = shape.size() - 1; d >= 0; --d) {
    index[static_cast<std::size_t>(d)] = i % shape[d];
    i /= shape[d];
  }
  return index;
}

double Array::at(const std::vector<std::int64_t>& index) const {
  const std::size_t dropped = index.size() - static_cast<std::size_t>(shape.size());
  std::int64_t offset = 0;
  for (int d = 0; d < shape.size(); ++d)
    offset = offset * shape[d] + (shape[d] == 1 ? 0 : index[dropped + static_cast<std::size_t>(d)]);
  return (*this)[offset];
}

Array same_order(const Array& x, const Shape& shape) {
  Array y(shape);
  y.values = x.values;
  return y;
}

Case moving(const Shape& from, std::function<Tensor(const Tensor&)> op,
            std::function<Array(const Array&)> reference) {
  return {from.to_string(),
          {{from}},
          [op](const Tensors& in) { return op(in[0]); },
          [reference](const Arrays& in) { return reference(in[0]); }};
}

const std::vector<OpRow>& op_table() {
  static const std::vector<OpRow> table = [] {
    std::vector<OpRow> all;
    for (const auto& part :
         {elementwise_rows(), in_place_rows(), shape_rows(), reduce_rows(), index_rows(), layer_rows(),
          loss_rows(), random_rows(), attention_rows(), recurrent_rows(), image_rows()})
      all.insert(all.end(), part.begin(), part.end());
    return all;
  }();
  return table;
}

std::vector<std::string> declarations_in(const std::string& header) {
  // Matches `Tensor name(...)` and `const Tensor& name(...)` at the start of a line, over one or more lines.
  static const std::regex declaration(
      R"((?:^|\n)(?:inline )?(?:const Tensor&|Tensor|Found|LstmState|std::vector<Tensor>) (\w+|operator.)\(([^)]*)\))");
  static const std::regex noise(R"(\bconst\b|&|=.*)"), trailing_name(R"(\s+\w+\s*$)"), blank(R"(^\s+|\s+$)");
  std::vector<std::string> found;
  for (std::sregex_iterator it(header.begin(), header.end(), declaration), end; it != end; ++it) {
    std::string types, list = (*it)[2];
    for (std::size_t at = 0; at <= list.size() && !list.empty();) {
      const std::size_t comma = std::min(list.find(',', at), list.size());
      std::string one = std::regex_replace(list.substr(at, comma - at), noise, "");
      one = std::regex_replace(std::regex_replace(one, trailing_name, ""), blank, "");
      types += (types.empty() ? "" : ", ") + one;
      at = comma + 1;
    }
    found.push_back((*it)[1].str() + "(" + types + ")");
  }
  return found;
}

Tensor beside(const Tensors& arguments, const Tensor& made) {
  return arguments[0].defined() ? to_device(made, arguments[0].device()) : made;
}

std::string op_headers() {
  const auto text_of = [](const std::string& path) {
    std::stringstream text;
    text << std::ifstream(source_dir() + "/" + path).rdbuf();
    return text.str();
  };
  static const std::regex include("#include \"(core/ops/[a-z_]+\\.h)\"");
  const std::string all = text_of("core/ops/ops.h");
  std::string text;
  for (std::sregex_iterator it(all.begin(), all.end(), include), end; it != end; ++it)
    text += text_of((*it)[1].str());
  return text;
}

}  // namespace trireme::test
