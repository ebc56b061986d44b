#include "examples/train_gnmt/task.h"

#include <algorithm>
#include <cstdio>

#include "kernels/error.h"
#include "kernels/rng.h"

namespace trireme {

TaskOptions parse_task(const std::string& spec) {
  TaskOptions o;
  if (spec == "reversal") return o;
  long long words = 0, length = 0, count = 0;
  char rest = 0;
  if (std::sscanf(spec.c_str(), "reversal:%lld,%lld,%lld%c", &words, &length, &count, &rest) != 3 ||
      words < 2 || words > 100000 || length < 2 || length > 1000 || count < 1)
    fail(
        ExitCode::kUsage,
        "--data '{}' is not reversal or reversal:WORDS,LENGTH,COUNT with 2 to 100000 words, a length of 2 to "
        "1000 and at least 1 sentence",
        spec);
  return {words, length, count};
}

std::int64_t Sentences::size() const {
  return split_ == Split::kTrain ? options_.count : std::max<std::int64_t>(1, options_.count / 40);
}

std::vector<SampleField> Sentences::fields() const {
  const Shape source{options_.length}, target{options_.length + 1};
  return {{source, DType::kInt64}, {target, DType::kInt64}, {target, DType::kInt64}, {{}, DType::kInt64}};
}

void Sentences::read(const SampleId& id, std::span<std::byte* const> to) const {
  std::int64_t* fields[4];
  for (std::size_t f = 0; f < 4; ++f) fields[f] = reinterpret_cast<std::int64_t*>(to[f]);
  auto& [source, input, answer, length] = fields;
  const RandomKey key = random_key(0x73656e74656e6365, split_ == Split::kTrain ? 0 : 1, 0);  // "sentence"
  const auto draw = [&](std::int64_t place, std::int64_t bound) {
    const auto bits = philox(key, static_cast<std::uint64_t>(id.index), static_cast<std::uint64_t>(place));
    return static_cast<std::int64_t>(to_bounded(bits[0], static_cast<std::uint32_t>(bound)));
  };
  const std::int64_t longest = options_.length, shortest = longest / 2;
  const std::int64_t n = shortest + draw(0, longest - shortest + 1);
  std::fill_n(source, longest, kPad);
  std::fill_n(input, longest + 1, kPad);
  std::fill_n(answer, longest + 1, kIgnore);
  *length = n;
  input[0] = kBegin;
  answer[n] = kEnd;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t word = draw(i + 1, options_.words);
    source[i] = kFirstWord + word;
    answer[n - 1 - i] = input[n - i] = kFirstWord + (word + options_.words / 2) % options_.words;
  }
}

}  // namespace trireme
