// A made-up language pair: a sentence is translated word by word and turned around.
#pragma once

#include <string>

#include "core/data/dataset.h"

namespace trireme {

inline constexpr std::int64_t kPad = 0, kBegin = 1, kEnd = 2, kFirstWord = 3;
/// In answers: nothing is asked here.
inline constexpr std::int64_t kIgnore = -100;

struct TaskOptions {
  std::int64_t words = 20;     ///< of each language
  std::int64_t length = 8;     ///< longest sentence; the shortest has half of it
  std::int64_t count = 20000;  ///< sentences to train on; the test has a fortieth
  std::int64_t vocabulary() const { return words + kFirstWord; }
};
/// Reads "reversal[:words,length,count]"; fails with kUsage.
TaskOptions parse_task(const std::string& spec);

/// Fields: source (length), what the decoder reads (length+1) and should answer (length+1), the source's
/// length (); all int64. A sentence is a pure function of the options, the split and its index.
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
