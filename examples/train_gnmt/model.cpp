#include "examples/train_gnmt/model.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "examples/train_gnmt/task.h"

namespace trireme {

GnmtOptions parse_gnmt(const std::string& spec) {
  if (spec == "tiny") return {};
  if (spec == "gnmt") return {.layers = 8, .width = 1024};
  long long layers = 0, width = 0;
  char rest = 0;
  if (std::sscanf(spec.c_str(), "gnmt:%lld,%lld%c", &layers, &width, &rest) != 2 || layers < 1 ||
      layers > 100 || width < 2 || width > 100000 || width % 2 != 0)
    fail(ExitCode::kUsage, "--model '{}' is not tiny, gnmt or gnmt:LAYERS,WIDTH with an even width", spec);
  return {.layers = layers, .width = width};
}

double parameter_count(const GnmtOptions& o) {
  const auto w = static_cast<double>(o.width), v = static_cast<double>(o.vocabulary);
  const double encoder = 6 * w * w + 8 * w, decoder = 12 * w * w + 8 * w;  // parameters of one layer
  const double attention = 2 * w * w + 2 * w, words = 2 * v * w + (2 * w + 1) * v;
  return static_cast<double>(o.layers) * (encoder + decoder) + attention + words;
}

Gnmt::Gnmt(const GnmtOptions& o)
    : source_embedding_(o.vocabulary, o.width),
      target_embedding_(o.vocabulary, o.width),
      encoder_(o.width, o.width / 2,
               {.num_layers = o.layers, .batch_first = true, .dropout = o.dropout, .bidirectional = true}),
      key_(o.width, o.width),
      query_(o.width, o.width, false),
      score_(o.width, 1, false),
      out_(2 * o.width, o.vocabulary),
      dropout_(o.dropout) {
  for (std::int64_t i = 0; i < o.layers; ++i) decoder_.emplace_back(2 * o.width, o.width);
}

void Gnmt::visit(nn::Visitor& v) {
  v.module("source_embedding", source_embedding_);
  v.module("target_embedding", target_embedding_);
  v.module("encoder", encoder_);
  v.module("decoder", decoder_);
  v.module("key", key_);
  v.module("query", query_);
  v.module("score", score_);
  v.module("out", out_);
  v.module("dropout", dropout_);
}

Gnmt::State Gnmt::State::select(const Tensor& rows) const {
  const auto of = [&](const Tensor& t) { return index_select(t, 0, rows); };
  State chosen{of(memory), of(keys), of(mask), {}, of(context)};
  for (const LstmState& layer : layers) chosen.layers.push_back({of(layer.h), of(layer.c)});
  return chosen;
}

Gnmt::State Gnmt::encode(const Tensor& source, const Tensor& lengths) {
  State state;
  state.memory = encoder_(dropout_(source_embedding_(source)), {}, lengths).output;
  state.keys = key_(state.memory);
  state.mask = eq(source, static_cast<double>(kPad));
  const Tensor zeros =
      Tensor::zeros({source.size(0), state.memory.size(2)}, state.memory.dtype(), source.device());
  state.layers.assign(decoder_.size(), {zeros, zeros});
  state.context = zeros;
  return state;
}

/// Runs the decoder for one word. The state of the lowest layer is the query of the attention, and all layers
/// read the attention's result.
Tensor Gnmt::advance(State& state, const Tensor& embedded) {
  Tensor x = embedded;
  for (std::size_t i = 0; i < decoder_.size(); ++i) {
    state.layers[i] = (*decoder_[i])(cat({x, state.context}, 1), state.layers[i]);
    const Tensor& h = state.layers[i].h;
    if (i == 0) {
      // Additive attention: D. Bahdanau et al., "Neural machine translation by jointly learning to align and
      // translate", 2015.
      const Tensor scores = squeeze(score_(tanh(state.keys + unsqueeze(query_(h), 1))), 2);
      const Tensor weights = softmax(masked_fill(scores, state.mask, -INFINITY));
      state.context = squeeze(bmm(unsqueeze(weights, 1), state.memory), 1);
    }
    x = dropout_(i < 2 ? h : h + x);
  }
  return cat({x, state.context}, 1);
}

Tensor Gnmt::step(State& state, const Tensor& words) {
  return out_(advance(state, target_embedding_(words)));
}

Tensor Gnmt::operator()(const Tensor& source, const Tensor& lengths, const Tensor& input) {
  return with_hooks({source, lengths, input}, [this](const std::vector<Tensor>& in) {
    return std::vector{logits(in[0], in[1], in[2])};
  })[0];
}

Tensor Gnmt::logits(const Tensor& source, const Tensor& lengths, const Tensor& input) {
  State state = encode(source, lengths);
  const Tensor embedded = dropout_(target_embedding_(input));
  std::vector<Tensor> found;
  for (std::int64_t t = 0; t < input.size(1); ++t) found.push_back(advance(state, select(embedded, 1, t)));
  return out_(stack(found, 1));
}

std::vector<std::int64_t> Gnmt::translate(const Tensor& source, const Tensor& lengths, std::int64_t beams) {
  struct Hypothesis {
    std::vector<std::int64_t> words;
    double score;
    std::int64_t parent;
  };
  // Normalize scores by length, because longer translations have lower ones: section 7 of Wu et al.
  const auto normalized = [](const Hypothesis& h) {
    return h.score / std::pow((6 + static_cast<double>(h.words.size())) / 6, 0.6);
  };
  State state = encode(source, lengths);
  std::vector<Hypothesis> open{{{}, 0, 0}};
  Hypothesis best{{}, -INFINITY, 0};
  for (std::int64_t t = 0; t < 2 * source.size(1) && !open.empty(); ++t) {
    std::vector<std::int64_t> last, parents;
    for (const Hypothesis& h : open) {
      last.push_back(h.words.empty() ? kBegin : h.words.back());
      parents.push_back(h.parent);
    }
    const auto count = static_cast<std::int64_t>(open.size());
    if (t > 0) state = state.select(to(Tensor::from(parents, {count}), source.device()));
    const Tensor logits = log_softmax(step(state, to(Tensor::from(last, {count}), source.device())));
    const Found found = topk(logits, std::min(beams, logits.size(1)));
    const auto words = found.indices.to_vector<std::int64_t>();
    const auto scores = found.values.to_vector<float>();
    std::vector<Hypothesis> next;
    for (std::size_t i = 0; i < words.size(); ++i) {
      const std::int64_t parent = static_cast<std::int64_t>(i) / found.values.size(1), word = words[i];
      Hypothesis h = open[static_cast<std::size_t>(parent)];
      h.score += static_cast<double>(scores[i]);
      h.parent = parent;
      if (word != kEnd) {
        h.words.push_back(word);
        next.push_back(std::move(h));
      } else if (normalized(h) > normalized(best)) {
        best = std::move(h);
      }
    }
    std::ranges::stable_sort(next, std::greater<>(), &Hypothesis::score);
    if (next.size() > static_cast<std::size_t>(beams)) next.resize(static_cast<std::size_t>(beams));
    // Drop hypotheses that cannot become the best: scores only fall, and `longest` is the largest divisor of
    // normalized().
    const double longest = std::pow((6 + 2 * static_cast<double>(source.size(1))) / 6, 0.6);
    std::erase_if(next, [&](const Hypothesis& h) { return h.score / longest <= normalized(best); });
    open = std::move(next);
  }
  return best.words;
}

}  // namespace trireme
