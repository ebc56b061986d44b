#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace trireme {

/// The word of `known` that was probably meant by `given`: the nearest one by letters inserted, removed or
/// replaced (Levenshtein's distance), or "" when none is near, that is within a third of the letters of
/// `given` and never more than three.
std::string nearest(std::string_view given, const std::vector<std::string>& known);

}  // namespace trireme
