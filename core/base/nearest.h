#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace trireme {

/// Returns the word of `known` that was probably meant by `given`: the nearest one by letters inserted,
/// removed or replaced (Levenshtein's distance). Returns "" if the distance of the nearest word is more than
/// three, or more than a third of the letters of `given`, but a distance of 1 is always accepted.
std::string nearest(std::string_view given, const std::vector<std::string>& known);

}  // namespace trireme
