#include "core/nn/transformer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/amp/autocast.h"
#include "core/autograd/autograd.h"
#include "core/nn/layers.h"
#include "tests/unit/core/nn_check.h"

namespace trireme::nn {
namespace {

using test::expect_near;
using test::Names;
using test::names_of;
using test::numbers;

/// Changes all parameters from their initial values, so that a part used in the wrong place shows.
template <class M>
void shake(M& module) {
  to(module, DType::kFloat64);
  std::uint64_t key = 100;
  const NoGrad off;
  for (const NamedTensor& p : module.parameters())
    add_(p.tensor, normal(p.tensor.shape(), RandomKey{key++}, 0, 0.3, DType::kFloat64));
}

Tensor activated(const TransformerOptions& o, const Tensor& h) {
  return o.activation == TransformerActivation::kRelu ? relu(h) : gelu(h);
}

/// Computes an encoder layer from its parts, as in the paper or, with norm first, as in its later form.
Tensor encoded(TransformerEncoderLayer& l, const Tensor& x, const AttentionMask& mask) {
  const auto attend = [&](const Tensor& t) { return l.self_attn(t, t, t, mask); };
  const auto feed = [&](const Tensor& t) { return l.linear2(activated(l.options, l.linear1(t))); };
  if (l.options.norm_first) {
    const Tensor y = x + attend(l.norm1(x));
    return y + feed(l.norm2(y));
  }
  const Tensor y = l.norm1(x + attend(x));
  return l.norm2(y + feed(y));
}

Tensor decoded(TransformerDecoderLayer& l, const Tensor& x, const Tensor& memory, const AttentionMask& mask,
               const AttentionMask& memory_mask) {
  const auto attend = [&](const Tensor& t) { return l.self_attn(t, t, t, mask); };
  const auto look = [&](const Tensor& t) { return l.multihead_attn(t, memory, memory, memory_mask); };
  const auto feed = [&](const Tensor& t) { return l.linear2(activated(l.options, l.linear1(t))); };
  if (l.options.norm_first) {
    const Tensor y = x + attend(l.norm1(x)), z = y + look(l.norm2(y));
    return z + feed(l.norm3(z));
  }
  const Tensor y = l.norm1(x + attend(x)), z = l.norm2(y + look(y));
  return l.norm3(z + feed(z));
}

std::vector<TransformerOptions> variants() {
  std::vector<TransformerOptions> all;
  for (const bool norm_first : {false, true})
    for (const auto activation : {TransformerActivation::kRelu, TransformerActivation::kGelu})
      for (const bool batch_first : {false, true})
        all.push_back({.dim_feedforward = 10,
                       .dropout = 0,
                       .activation = activation,
                       .batch_first = batch_first,
                       .norm_first = norm_first});
  return all;
}

const AttentionMask kPadded{.key_padding_mask =
                                gt(Tensor::from(std::vector<float>{0, 0, 1, 0, 0, 0}, {2, 3}), 0.5)};

TEST(Transformer, LayersAreTheirPartsInOrder) {
  const Tensor x = numbers({2, 4, 6}, 1), memory = numbers({2, 3, 6}, 2);
  for (const TransformerOptions& o : variants()) {
    TransformerEncoderLayer encoder(6, 2, o);
    TransformerDecoderLayer decoder(6, 2, o);
    shake(encoder);
    shake(decoder);
    const auto turned = [&](const Tensor& t) { return o.batch_first ? t : transpose(t, 0, 1); };
    expect_near(turned(encoder(turned(x))), encoded(encoder, x, {}).to_vector<double>(), 1e-12);
    expect_near(turned(encoder(turned(memory), kPadded)),
                encoded(encoder, memory, kPadded).to_vector<double>(), 1e-12);
    const AttentionMask causal{.is_causal = true};
    expect_near(turned(decoder(turned(x), turned(memory), causal, kPadded)),
                decoded(decoder, x, memory, causal, kPadded).to_vector<double>(), 1e-12);
    expect_near(encoder(select(x, 0, 1)), select(encoded(encoder, x, {}), 0, 1).to_vector<double>(), 1e-12);
  }
}

TEST(Transformer, StacksRunTheirLayersAndNorms) {
  for (const TransformerOptions& o : {variants()[0], variants()[1]}) {
    TransformerEncoder encoder(6, 2, 2, o, true);
    TransformerDecoder decoder(6, 2, 2, o);
    shake(encoder);
    shake(decoder);
    const Tensor x = numbers({2, 3, 6}, 1), tgt = numbers({2, 4, 6}, 2);
    const auto turned = [&](const Tensor& t) { return o.batch_first ? t : transpose(t, 0, 1); };
    Tensor y = encoded(*encoder.layers[1], encoded(*encoder.layers[0], x, kPadded), kPadded);
    y = (*encoder.norm)(y);
    expect_near(turned(encoder(turned(x), kPadded)), y.to_vector<double>(), 1e-12);
    Tensor z = decoded(*decoder.layers[0], tgt, y, {.is_causal = true}, kPadded);
    z = decoded(*decoder.layers[1], z, y, {.is_causal = true}, kPadded);
    expect_near(turned(decoder(turned(tgt), turned(y), {.is_causal = true}, kPadded)), z.to_vector<double>(),
                1e-12);
    EXPECT_NE(encoder.layers[0]->linear1.weight.to_vector<float>(),
              encoder.layers[1]->linear1.weight.to_vector<float>());
  }
}

TEST(Transformer, GradientsMatchFiniteDifferences) {
  manual_seed(4);
  Transformer model(4, 2, 1, 1,
                    {.dim_feedforward = 5, .dropout = 0, .activation = TransformerActivation::kGelu});
  shake(model);
  const Tensor src = numbers({3, 2, 4}, 1), tgt = numbers({2, 2, 4}, 2),
               weights = numbers({2, 2, 4}, 3).detach();
  std::vector<NamedTensor> checked = model.parameters();
  checked.push_back({"src", src});
  checked.push_back({"tgt", tgt});
  test::check_gradients(
      [&] {
        return sum(model(src, tgt, {.src = kPadded, .tgt = {.is_causal = true}, .memory = kPadded}) *
                   weights);
      },
      checked);
}

TEST(Transformer, CausalDecoderDoesNotLookAhead) {
  Transformer model(8, 2, 1, 2, {.dim_feedforward = 16, .dropout = 0, .batch_first = true});
  const Tensor src = normal({1, 3, 8}, RandomKey{1}), tgt = normal({1, 5, 8}, RandomKey{2});
  const Tensor other = cat({narrow(tgt, 1, 0, 3), normal({1, 2, 8}, RandomKey{3})}, 1);
  const Tensor a = model(src, tgt, {.tgt = {.is_causal = true}}),
               b = model(src, other, {.tgt = {.is_causal = true}});
  expect_near(narrow(a, 1, 0, 3), narrow(b, 1, 0, 3).to_vector<double>(), 1e-6);
  EXPECT_GT(amax(abs(narrow(a, 1, 3, 2) - narrow(b, 1, 3, 2))).item(), 1e-3);
  EXPECT_GT(amax(abs(narrow(model(src, tgt) - model(src, other), 1, 0, 3))).item(), 1e-3);
}

TEST(Transformer, HasTheNamesAndValuesOfPyTorch) {
  const Names layer{"self_attn.in_proj_weight",
                    "self_attn.in_proj_bias",
                    "self_attn.out_proj.weight",
                    "self_attn.out_proj.bias",
                    "linear1.weight",
                    "linear1.bias",
                    "linear2.weight",
                    "linear2.bias",
                    "norm1.weight",
                    "norm1.bias",
                    "norm2.weight",
                    "norm2.bias"};
  TransformerEncoderLayer one(8, 2);
  EXPECT_EQ(names_of(state_dict(one)), layer);
  EXPECT_EQ(one.linear1.weight.shape(), (Shape{2048, 8}));
  EXPECT_EQ(one.dropout1.p, 0.1);
  Transformer model(8, 2, 2, 1, {.dim_feedforward = 16});
  const Names names = names_of(state_dict(model));
  EXPECT_EQ(names[0], "encoder.layers.0.self_attn.in_proj_weight");
  EXPECT_EQ(names[12], "encoder.layers.1.self_attn.in_proj_weight");
  EXPECT_EQ(names[24], "encoder.norm.weight");
  EXPECT_EQ(names[26], "decoder.layers.0.self_attn.in_proj_weight");
  EXPECT_EQ(names[30], "decoder.layers.0.multihead_attn.in_proj_weight");
  EXPECT_EQ(names.back(), "decoder.norm.bias");
  EXPECT_EQ(names.size(), 24u + 2 + 18 + 2);
  for (const NamedTensor& p : model.parameters()) {
    if (p.tensor.dim() < 2) continue;
    const double bound = std::sqrt(6.0 / static_cast<double>(p.tensor.size(0) + p.tensor.size(1)));
    EXPECT_LE(amax(abs(p.tensor)).item(), bound) << p.name;
    EXPECT_GT(amax(abs(p.tensor)).item(), 0.9 * bound) << p.name;
  }
  EXPECT_EQ(names_of(TransformerDecoderLayer(8, 2, {.bias = false}).parameters()),
            (Names{"self_attn.in_proj_weight", "self_attn.out_proj.weight", "multihead_attn.in_proj_weight",
                   "multihead_attn.out_proj.weight", "linear1.weight", "linear2.weight", "norm1.weight",
                   "norm2.weight", "norm3.weight"}));
}

TEST(Transformer, DropsBySampleInEitherLayout) {
  for (const bool batch_first : {true, false}) {
    manual_seed(5);
    Transformer model(8, 2, 2, 1, {.dim_feedforward = 16, .dropout = 0.3, .batch_first = batch_first});
    name_modules(model, "model");
    const int batch = batch_first ? 0 : 1;
    const Tensor x = normal(batch_first ? Shape{4, 3, 8} : Shape{3, 4, 8}, RandomKey{1});
    const auto run = [&](const Tensor& part, std::int64_t first) {
      set_random_context({.seed = 3, .step = 8, .first_sample = first});
      return model(part, part);
    };
    const Tensor whole = run(x, 10);
    expect_near(cat({run(narrow(x, batch, 0, 1), 10), run(narrow(x, batch, 1, 3), 11)}, batch),
                whole.to_vector<double>(), 1e-5);
    EXPECT_GT(amax(abs(run(x, 11) - whole)).item(), 1e-3);
    model.eval();
    EXPECT_EQ(run(x, 11).to_vector<float>(), run(x, 10).to_vector<float>());
    EXPECT_GT(amax(abs(run(x, 10) - whole)).item(), 1e-3);
    set_random_context({});
  }
}

TEST(Transformer, EveryDropoutHasNumbersOfItsOwn) {
  TransformerDecoderLayer layer(8, 2);
  std::vector<std::vector<float>> masks;
  for (Dropout* d : {&layer.self_attn.dropout, &layer.multihead_attn.dropout, &layer.dropout, &layer.dropout1,
                     &layer.dropout2, &layer.dropout3}) {
    EXPECT_EQ(d->p, 0.1);
    d->p = 0.5;
    d->set_path("none");
  }
  name_modules(layer, "layer");
  for (Dropout* d : {&layer.self_attn.dropout, &layer.multihead_attn.dropout, &layer.dropout, &layer.dropout1,
                     &layer.dropout2, &layer.dropout3})
    masks.push_back((*d)(Tensor::ones({1, 64})).to_vector<float>());
  for (std::size_t i = 0; i < masks.size(); ++i)
    for (std::size_t j = 0; j < i; ++j) EXPECT_NE(masks[i], masks[j]) << i << " " << j;
}

TEST(Transformer, RunsUnderAutocast) {
  Transformer model(8, 2, 1, 1, {.dim_feedforward = 16, .dropout = 0});
  const Tensor x = normal({3, 2, 8}, RandomKey{1});
  const TransformerMasks masks{.src = kPadded, .tgt = {.is_causal = true}};
  const Tensor exact = model(x, x, masks);
  const amp::Autocast guard;
  const Tensor y = model(x, x, masks);
  EXPECT_NE(y.to_vector<float>(), exact.to_vector<float>());
  expect_near(y, exact.to_vector<double>(), 0.1);
  sum(square(y)).backward();
  for (const NamedTensor& p : model.parameters())
    EXPECT_EQ(p.tensor.grad().dtype(), DType::kFloat32) << p.name;
}

TEST(Transformer, HooksSeeEveryLayer) {
  Transformer model(8, 2, 2, 1, {.dim_feedforward = 16, .dropout = 0});
  int calls = 0;
  const auto count = [&](const std::vector<Tensor>&, const std::vector<Tensor>&) {
    ++calls;
    return std::vector<Tensor>{};
  };
  for (Module* m :
       std::initializer_list<Module*>{&model, &model.encoder, &model.decoder, model.encoder.layers[1].get(),
                                      model.decoder.layers[0].get(), &model.decoder.layers[0]->multihead_attn,
                                      &model.encoder.layers[0]->norm2, model.encoder.norm.get()})
    m->register_forward_hook(count);
  const Tensor x = normal({3, 2, 8}, RandomKey{1});
  model(x, x);
  EXPECT_EQ(calls, 8);
}

}  // namespace
}  // namespace trireme::nn
