// An encoder-decoder of LSTMs with attention. It follows Y. Wu et al., "Google's neural machine translation
// system", 2016, except that every encoder layer is bidirectional.
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
/// Returns the options of "tiny", "gnmt" (8 layers of width 1024) or "gnmt:LAYERS,WIDTH". Throws
/// Error(kUsage) for any other text.
GnmtOptions parse_gnmt(const std::string& spec);
/// Returns the number of parameters without building the model, which may be too large for the memory.
double parameter_count(const GnmtOptions& o);

class Gnmt : public nn::Module {
 public:
  explicit Gnmt(const GnmtOptions& options);
  /// Returns the logits (N,T,vocabulary) for source sentences (N,S), their lengths (N), and the words that
  /// the decoder reads (N,T).
  Tensor operator()(const Tensor& source, const Tensor& lengths, const Tensor& input);
  void visit(nn::Visitor& v) override;

  /// The decoder's state in each of N translations.
  struct State {
    Tensor memory, keys, mask;      ///< encoded source (N,S,W), its attention keys (N,S,W), its padding (N,S)
    std::vector<LstmState> layers;  ///< states of the decoder's layers
    Tensor context;                 ///< result of the last attention (N,W)
    /// Returns the states of the translations `rows` (M) int64.
    State select(const Tensor& rows) const;
  };
  /// Encodes source sentences (N,S) of the given lengths (N) and returns the state at the first word.
  State encode(const Tensor& source, const Tensor& lengths);
  /// Feeds `words` (N) to the decoder, updates `state`, and returns the logits (N,vocabulary) of the next
  /// words.
  Tensor step(State& state, const Tensor& words);
  /// Returns the best translation of one source (1,S) that beam search finds, without kBegin and kEnd.
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
