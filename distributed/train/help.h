// The one style of all help texts.
#pragma once

#include <string>

namespace CLI {
class App;
}

namespace trireme {

/// Returns the help of a program or subcommand: what it does, its usage, then a line for each argument, flag
/// and subcommand. Lines are wrapped at the width of standard output's terminal or of the variable COLUMNS;
/// without either they stay whole. `usage` replaces "NAME [OPTIONS] ARGUMENTS".
std::string help_text(const CLI::App& app, const std::string& usage = "");

/// Returns `text` after a margin of `indent` spaces, wrapped so that lines stay within `width` columns (0: no
/// limit). The first line is taken to have `used` columns already, and gets no margin. Only words that
/// are longer than a line are broken.
std::string wrapped(const std::string& text, int indent, int width, int used);

/// Returns the width that help_text() wraps at; 0 for no limit.
int help_width();

}  // namespace trireme
