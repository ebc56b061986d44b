// A synthetic translation task: a translation replaces each word by another and reverses the order.
#pragma once

#include <string>

#include "core/data/dataset.h"

namespace trireme {

inline constexpr std::int64_t kPad = 0, kBegin = 1, kEnd = 2, kFirstWord = 3;
/// The target at positions after the end of a sentence. The loss ignores it.
inline constexpr std::int64_t kIgnore = -100;

struct TaskOptions {
  std::int64_t words = 20;     ///< number of words of each language
  std::int64_t length = 8;     ///< words in the longest sentence; the shortest has half as many
  std::int64_t count = 20000;  ///< number of training sentences; there are a fortieth as many for testing
  std::int64_t vocabulary() const { return words + kFirstWord; }
};
/// Returns the options of "reversal[:WORDS,LENGTH,COUNT]". Throws Error(kUsage) for any other text.
TaskOptions parse_task(const std::string& spec);

/// Sentences and their translations. Fields, all int64: the source (length), the words that the decoder reads
/// (length+1), the words that it should answer (length+1), and the source's length (). A sample is a pure
/// function of the options, the split and its index.
class Sentences final : public Dataset {
 public:
  Sentences(const TaskOptions& options, Split split) : options_(options), split_(split) {}
  std::int64_t size() const override;
  std::vector<SampleField> fields() const override;
  void read(const SampleId& id, std::span<std::byte* const> to) const override;
  std::string_view unit() const override { return "sentences"; }

 private:
  TaskOptions options_;
  Split split_;
};

}  // namespace trireme
