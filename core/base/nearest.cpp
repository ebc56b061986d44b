#include "core/base/nearest.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace trireme {
namespace {

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = std::exchange(row[j], std::min({row[j] + 1, row[j - 1] + 1, replaced}));
    }
  }
  return row.back();
}

}  // namespace

std::string nearest(std::string_view given, const std::vector<std::string>& known) {
  std::string best;
  std::size_t least = std::clamp<std::size_t>(given.size() / 3, 1, 3) + 1;
  for (const std::string& word : known) {
    const std::size_t distance = edit_distance(given, word);
    if (distance < least) {
      best = word;
      least = distance;
    }
  }
  return best;
}

}  // namespace trireme
