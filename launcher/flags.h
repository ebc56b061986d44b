// What the subcommands of `trireme` do alike with their flags. An App's name is "trireme COMMAND".
#pragma once

#include <string>

namespace CLI {
class App;
}

namespace trireme {

/// After a CLI::ExtrasError: Error(kUsage) that names the flag which was probably meant.
[[noreturn]] void fail_unknown(const CLI::App& app);

/// False when help was asked for, and is printed. Error(kUsage) for flags that are wrong.
bool parse_flags(CLI::App& app, int argc, char** argv);

}  // namespace trireme
