#include "examples/train_gpt/model.h"

#include <charconv>
#include <cmath>
#include <map>
#include <set>
#include <sstream>

namespace trireme {

namespace {

constexpr double kStd = 0.02;
/// Returns the initial standard deviation of the projections into the residual stream. It makes the size of
/// the stream independent of the number of layers.
double residual_std(const GptOptions& o) { return kStd / std::sqrt(2.0 * static_cast<double>(o.layers)); }

}  // namespace

GptOptions parse_gpt(const std::string& spec) {
  if (spec == "nano") return {};
  if (spec == "gpt2-124m") return {.layers = 12, .width = 768, .heads = 12, .context = 1024};
  const auto refuse = [&](const std::string& why) {
    fail(ExitCode::kUsage, "--model '{}': {}; use nano, gpt2-124m or gpt:layers=L,width=W,heads=H,context=T",
         spec, why);
  };
  if (!spec.starts_with("gpt:")) refuse("there is no such model");
  GptOptions o;
  const std::map<std::string, std::int64_t*> sizes{
      {"layers", &o.layers}, {"width", &o.width}, {"heads", &o.heads}, {"context", &o.context}};
  std::set<std::string> seen;
  std::istringstream parts(spec.substr(4));
  for (std::string part; std::getline(parts, part, ',');) {
    const std::size_t equals = std::min(part.find('='), part.size());
    const auto size = sizes.find(part.substr(0, equals));
    if (size == sizes.end()) refuse(fmt::format("'{}' is none of its sizes", part));
    if (!seen.insert(size->first).second) refuse(fmt::format("{} is given twice", size->first));
    const char* const end = part.data() + part.size();
    std::int64_t value = 0;
    if (equals == part.size() || std::from_chars(part.data() + equals + 1, end, value).ptr != end ||
        value < 1 || value > 1000000)
      refuse(fmt::format("'{}' is not a whole number from 1 to 1000000", part));
    *size->second = value;
  }
  if (o.width % o.heads != 0) refuse(fmt::format("width {} does not divide into {} heads", o.width, o.heads));
  return o;
}

double parameter_count(const GptOptions& o) {
  const auto w = static_cast<double>(o.width);
  const double in_a_layer = 12 * w * w + 13 * w;  // four linear layers with biases, and two norms
  return static_cast<double>(o.vocabulary + o.context + 2) * w + static_cast<double>(o.layers) * in_a_layer;
}

Projection::Projection(std::int64_t in, std::int64_t out, double std)
    : weight(normal({in, out}, nn::next_initial_key(), 0, std).set_requires_grad(true)),
      bias(Tensor::zeros({out}).set_requires_grad(true)) {}

void Projection::visit(nn::Visitor& v) {
  v.parameter("weight", weight);
  v.parameter("bias", bias);
}

CausalSelfAttention::CausalSelfAttention(const GptOptions& o)
    : heads(o.heads),
      c_attn(o.width, 3 * o.width, kStd),
      c_proj(o.width, o.width, residual_std(o)),
      dropout(o.dropout) {}

Tensor CausalSelfAttention::forward(const Tensor& x) {
  const std::int64_t b = x.size(0), t = x.size(1), w = x.size(2);
  const Tensor all = permute(reshape(c_attn(x), {b, t, 3, heads, w / heads}), {2, 0, 3, 1, 4});
  const Tensor query = select(all, 0, 0), key = select(all, 0, 1),
               value = select(all, 0, 2);  // (B,heads,T,W/heads)
  const Tensor y = scaled_dot_product_attention(query, key, value, {.is_causal = true});
  return dropout(c_proj(reshape(transpose(y, 1, 2), {b, t, w})));
}

void CausalSelfAttention::visit(nn::Visitor& v) {
  v.module("c_attn", c_attn);
  v.module("c_proj", c_proj);
  v.module("dropout", dropout);
}

Mlp::Mlp(const GptOptions& o)
    : c_fc(o.width, 4 * o.width, kStd), c_proj(4 * o.width, o.width, residual_std(o)), dropout(o.dropout) {}

Tensor Mlp::forward(const Tensor& x) { return dropout(c_proj(gelu(c_fc(x), Gelu::kTanh))); }

void Mlp::visit(nn::Visitor& v) {
  v.module("c_fc", c_fc);
  v.module("c_proj", c_proj);
  v.module("dropout", dropout);
}

Tensor Block::forward(const Tensor& x) {
  const Tensor y = x + attn(ln_1(x));
  return y + mlp(ln_2(y));
}

void Block::visit(nn::Visitor& v) {
  v.module("ln_1", ln_1);
  v.module("attn", attn);
  v.module("ln_2", ln_2);
  v.module("mlp", mlp);
}

Gpt::Gpt(const GptOptions& o)
    : options(o), wte(o.vocabulary, o.width), wpe(o.context, o.width), dropout(o.dropout), ln_f(o.width) {
  nn::init::normal_(wte.weight, 0, kStd);
  nn::init::normal_(wpe.weight, 0, kStd);
  for (std::int64_t i = 0; i < o.layers; ++i) h.push_back(std::make_shared<Block>(o));
}

Tensor Gpt::forward(const Tensor& tokens) {
  const Tensor x = dropout(wte(tokens) + narrow(wpe.weight, 0, 0, tokens.size(1)));
  return linear(ln_f(h(x)), wte.weight);
}

void Gpt::visit(nn::Visitor& v) {
  v.module("wte", wte);
  v.module("wpe", wpe);
  v.module("dropout", dropout);
  v.module("h", h);
  v.module("ln_f", ln_f);
}

}  // namespace trireme
