#include "distributed/train/help.h"

#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <sstream>

#include "core/base/terminal.h"
#include "kernels/error.h"

namespace trireme {

namespace {

constexpr int kColumn = 42;  ///< the column in which descriptions begin on wide terminals
constexpr int kMargin = 2;

/// Adds "  name   description" to `text`.
void add_line(std::string& text, const std::string& name, const std::string& description, int width) {
  const int column = width == 0 ? kColumn : std::min(kColumn, std::max(16, width / 2));
  text += std::string(kMargin, ' ') + name;
  int used = kMargin + static_cast<int>(name.size());
  if (used + 2 > column) {
    text += "\n";
    used = 0;
  }
  text += std::string(static_cast<std::size_t>(column - used), ' ');
  text += wrapped(description, column, width, column) + "\n";
}

/// Returns the name of an argument as the help shows it.
std::string argument_name(const CLI::Option& option) {
  std::string name = option.get_name(true);
  std::ranges::transform(name, name.begin(),
                         [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return name;
}

/// Returns the option as the help shows it: "--flag TYPE", or "-n,--ranks N".
std::string name_of(const CLI::Option& option) {
  if (option.get_positional()) return argument_name(option);
  const std::string type = option.get_type_name(), name = option.get_name(false, true);
  return type.empty() || option.get_items_expected_max() == 0 ? name : name + " " + type;
}

std::string description_of(const CLI::Option& option) {
  const std::string preset = option.get_default_str();
  return option.get_description() + (preset.empty() ? "" : " (default " + preset + ")");
}

std::string usage_of(const CLI::App& app) {
  const std::string parent = app.get_parent() ? app.get_parent()->get_name() + " " : "";
  std::string usage = parent + app.get_name() + " [OPTIONS]";
  for (const CLI::Option* option : app.get_options([](const CLI::Option* o) { return o->get_positional(); }))
    usage += " " + argument_name(*option);
  return usage + (app.get_subcommands({}).empty() ? "" : " COMMAND");
}

/// Returns the word with line breaks and margins in it if it is longer than a line: a list of names, a path.
std::string broken(const std::string& word, int indent, int width) {
  const auto room = static_cast<std::size_t>(std::max(8, width - indent));
  std::string text, rest = word;
  while (rest.size() > room) {
    const std::size_t end = rest.find_last_of("|/,", room - 1);
    const std::size_t size = end == rest.npos || end == 0 ? room : end + 1;
    text += rest.substr(0, size) + "\n" + std::string(static_cast<std::size_t>(indent), ' ');
    rest.erase(0, size);
  }
  return text + rest;
}

}  // namespace

int help_width() {
  if (const int columns = terminal_columns(STDOUT_FILENO); columns > 0) return columns;
  const char* told = std::getenv("COLUMNS");
  return told ? std::max(0, std::atoi(told)) : 0;
}

std::string wrapped(const std::string& text, int indent, int width, int used) {
  std::string result;
  std::istringstream lines(text);
  bool first_line = true;
  for (std::string line; std::getline(lines, line); first_line = false) {
    if (!first_line) {
      result += "\n" + std::string(static_cast<std::size_t>(indent), ' ');
      used = indent;
    }
    std::istringstream words(line);
    bool first_word = true;
    for (std::string word; words >> word; first_word = false) {
      if (width > 0) word = broken(word, indent, width);
      const int length = static_cast<int>(word.size());
      const int begin = static_cast<int>(std::min(word.find('\n'), word.size()));
      if (!first_word && width > 0 && used + 1 + begin > width) {
        result += "\n" + std::string(static_cast<std::size_t>(indent), ' ');
        used = indent;
      } else if (!first_word) {
        result += ' ';
        ++used;
      }
      result += word;
      used += length;
      if (const std::size_t last = word.rfind('\n'); last != word.npos)
        used = static_cast<int>(word.size() - last) - 1;
    }
  }
  return result;
}

std::string help_text(const CLI::App& app, const std::string& usage) {
  if (const auto chosen = app.get_subcommands(); !chosen.empty()) return help_text(*chosen.back());
  const int width = help_width();
  std::string text = wrapped(app.get_description(), 0, width, 0) + "\n\nUsage: ";
  text += wrapped(usage.empty() ? usage_of(app) : usage, 7, width, 7) + "\n";
  std::vector<std::string> groups;
  const auto options = app.get_options({});
  for (const CLI::Option* option : options) {
    const std::string group = option->get_positional() ? "Arguments" : option->get_group();
    if (std::ranges::find(groups, group) == groups.end()) groups.push_back(group);
  }
  // Arguments stand first, as on the command line.
  std::ranges::stable_partition(groups, [](const std::string& group) { return group == "Arguments"; });
  for (const std::string& group : groups) {
    if (group.empty()) continue;  // hidden
    text += "\n" + group + ":\n";
    for (const CLI::Option* option : options)
      if ((option->get_positional() ? "Arguments" : option->get_group()) == group)
        add_line(text, name_of(*option), description_of(*option), width);
  }
  const auto commands = app.get_subcommands({});
  if (!commands.empty()) text += "\nCommands:\n";
  for (const CLI::App* command : commands)
    add_line(text, command->get_name(), command->get_description(), width);
  return text;
}

}  // namespace trireme
