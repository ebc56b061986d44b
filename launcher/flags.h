// Parsing of flags that all subcommands of `trireme` share. The name of an App is "trireme COMMAND".
#pragma once

#include <string>

namespace CLI {
class App;
}

namespace trireme {

/// Throws Error(kUsage) for the first unknown flag, with the name of the most similar known flag. Call it
/// after a CLI::ExtrasError.
[[noreturn]] void fail_unknown(const CLI::App& app);

/// Parses the flags. Returns false if the user asked for help, which it has then printed. Throws
/// Error(kUsage) if the flags are wrong.
bool parse_flags(CLI::App& app, int argc, char** argv);

}  // namespace trireme
