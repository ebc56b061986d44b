// An encoder-decoder of LSTMs with attention, after Y. Wu et al., "Google's neural machine translation
// system", 2016 (every encoder layer here is bidirectional).
#pragma once

#include <trireme/trireme.h>

#include <string>
#include <vector>

namespace trireme {

struct GnmtOptions {
  std::int64_t layers = 1, width = 64;
  std::int64_t vocabulary = 0;
  double dropout = 0;
};
/// "tiny", "gnmt" (8 layers of 1024) or "gnmt:LAYERS,WIDTH"; fails with kUsage.
GnmtOptions parse_gnmt(const std::string& spec);
/// Of a model that may be too large to be built.
double parameter_count(const GnmtOptions& o);

class Gnmt : public nn::Module {
 public:
  explicit Gnmt(const GnmtOptions& options);
  /// Logits (N,T,vocabulary) of source (N,S), its lengths (N), and what the decoder reads (N,T).
  Tensor operator()(const Tensor& source, const Tensor& lengths, const Tensor& input);
  void visit(nn::Visitor& v) override;

  /// Where the decoder stands in each of N translations.
  struct State {
    Tensor memory, keys, mask;      ///< (N,S,W), (N,S,W), (N,S): of the source
    std::vector<LstmState> layers;  ///< of the decoder
    Tensor context;                 ///< (N,W)
    /// Those at `rows` (M) int64.
    State select(const Tensor& rows) const;
  };
  State encode(const Tensor& source, const Tensor& lengths);
  /// Logits (N,vocabulary) of the word after `words` (N); moves on.
  Tensor step(State& state, const Tensor& words);
  /// The best translation of one source (1,S), by beam search: words without begin and end.
  std::vector<std::int64_t> translate(const Tensor& source, const Tensor& lengths, std::int64_t beams);

 private:
  Tensor logits(const Tensor& source, const Tensor& lengths, const Tensor& input);
  Tensor advance(State& state, const Tensor& embedded);
  nn::Embedding source_embedding_, target_embedding_;
  nn::LSTM encoder_;
  nn::ModuleList<nn::LSTMCell> decoder_;
  nn::Linear key_, query_, score_, out_;
  nn::Dropout dropout_;
};

}  // namespace trireme
