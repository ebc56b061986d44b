#include "core/interchange/weight_map.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <sstream>

namespace trireme {

namespace {

using Bindings = std::map<std::string, std::string, std::less<>>;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/// The variable that a pattern begins with, without braces; empty if it begins with a plain letter.
std::string_view variable_of(std::string_view pattern) {
  return pattern.starts_with('{') ? pattern.substr(1, pattern.find('}') - 1) : std::string_view();
}

/// Returns true if the whole name matches the pattern. `bound` then holds the values of the variables.
bool matches(std::string_view pattern, std::string_view name, Bindings& bound) {
  if (pattern.empty()) return name.empty();
  const std::string_view variable = variable_of(pattern);
  if (variable.empty())
    return !name.empty() && name[0] == pattern[0] && matches(pattern.substr(1), name.substr(1), bound);
  const std::string_view rest = pattern.substr(variable.size() + 2);
  if (const auto known = bound.find(variable); known != bound.end())
    return name.starts_with(known->second) && matches(rest, name.substr(known->second.size()), bound);
  const bool any = variable.starts_with('*');
  for (std::size_t taken = any ? 0 : 1; taken <= name.size(); ++taken) {
    if (!any && !is_digit(name[taken - 1])) return false;
    const auto at = bound.emplace(variable, name.substr(0, taken)).first;
    if (matches(rest, name.substr(taken), bound)) return true;
    bound.erase(at);
  }
  return false;
}

std::string substituted(std::string_view pattern, const Bindings& bound) {
  std::string name;
  while (!pattern.empty()) {
    const std::string_view variable = variable_of(pattern);
    name += variable.empty() ? std::string(1, pattern[0]) : bound.find(variable)->second;
    pattern.remove_prefix(variable.empty() ? 1 : variable.size() + 2);
  }
  return name;
}

/// The variables of a pattern; throws std::string saying what is wrong with it.
std::vector<std::string> variables_in(std::string_view pattern) {
  std::vector<std::string> found;
  while (!pattern.empty()) {
    if (pattern[0] == '}') throw fmt::format("a }} without its {{");
    if (pattern[0] != '{') {
      pattern.remove_prefix(1);
      continue;
    }
    const std::size_t end = pattern.find('}');
    const std::string name(pattern.substr(1, end == std::string_view::npos ? end : end - 1));
    const std::string word = name.starts_with('*') ? name.substr(1) + 'x' : name;  // {*} needs no word
    const bool good = !word.empty() && std::ranges::all_of(word, is_letter);
    if (end == std::string_view::npos || !good)
      throw fmt::format("'{{{}': write {{i}} or another word for a number, {{*}} for any text", name);
    found.push_back(name);
    pattern.remove_prefix(end + 1);
  }
  return found;
}

WeightStep step_of(const std::string& word) {
  if (word == "transpose") return {};
  WeightStep step;
  constexpr std::string_view kPart = "part=";
  if (word.starts_with(kPart)) {
    const char* const end = word.data() + word.size();
    const auto [slash, bad] = std::from_chars(word.data() + kPart.size(), end, step.part);
    if (bad == std::errc() && slash != end && *slash == '/') {
      const auto [stop, wrong] = std::from_chars(slash + 1, end, step.parts);
      if (wrong == std::errc() && stop == end && step.part >= 1 && step.part <= step.parts) return step;
    }
  }
  throw fmt::format("'{}': known are transpose and part=K/N with K from 1 to N", word);
}

}  // namespace

WeightMap::WeightMap() : lines_{{"{*}", "{*}", {}}} {}

WeightMap WeightMap::parse(const std::string& text, const std::string& where) {
  WeightMap map;
  map.lines_.clear();
  std::istringstream lines(text);
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) try {
      std::istringstream words(line.substr(0, line.find('#')));
      Line rule;
      if (!(words >> rule.ours)) continue;
      if (!(words >> rule.theirs))
        throw fmt::format("'{}' stands alone: write our name, then theirs", rule.ours);
      for (std::string word; words >> word;) rule.steps.push_back(step_of(word));
      const auto left = variables_in(rule.ours), right = variables_in(rule.theirs);
      if (rule.ours != "-" && rule.theirs != "-")
        for (const std::string& variable : right)
          if (std::ranges::find(left, variable) == left.end())
            throw fmt::format("{{{}}} stands on their side only", variable);
      if (!rule.steps.empty() && (rule.ours == "-" || rule.theirs == "-"))
        throw std::string("nothing can be done to a tensor that is not used");
      map.lines_.push_back(std::move(rule));
    } catch (const std::string& wrong) {
      fail(ExitCode::kUsage, "{}:{}: {}", where, number, wrong);
    }
  return map;
}

WeightMap WeightMap::read(const std::filesystem::path& path, std::chrono::milliseconds patience) {
  return parse(read_text(path, ExitCode::kUsage, patience), path.string());
}

std::optional<WeightSource> WeightMap::source_of(const std::string& ours) const {
  for (const Line& line : lines_) {
    Bindings bound;
    if (line.ours == "-" || !matches(line.ours, ours, bound)) continue;
    return WeightSource{substituted(line.theirs, bound), line.steps};
  }
  return {};
}

bool WeightMap::ignores(const std::string& theirs) const {
  return std::ranges::any_of(lines_, [&](const Line& line) {
    Bindings bound;
    return line.ours == "-" && matches(line.theirs, theirs, bound);
  });
}

Tensor stepped(Tensor theirs, const std::vector<WeightStep>& steps) {
  for (const WeightStep& step : steps) {
    Shape shape = theirs.shape(), strides = theirs.strides();
    const int d = theirs.dim();
    std::int64_t offset = theirs.offset();
    if (step.parts == 0) {
      if (d < 2)
        fail(ExitCode::kCheckpoint, "transpose needs two dimensions, {} has {}", shape.to_string(), d);
      std::swap(shape[d - 1], shape[d - 2]);
      std::swap(strides[d - 1], strides[d - 2]);
    } else {
      if (d < 1 || shape[0] % step.parts != 0)
        fail(ExitCode::kCheckpoint, "{} cannot be cut into {} equal parts", shape.to_string(), step.parts);
      shape[0] /= step.parts;
      offset += (step.part - 1) * shape[0] * strides[0];
    }
    theirs = theirs.alias(shape, strides, offset);
  }
  return theirs;
}

}  // namespace trireme
