#include "launcher/flags.h"

#include <CLI/CLI.hpp>

#include "core/base/nearest.h"
#include "distributed/train/help.h"
#include "kernels/error.h"

namespace trireme {

namespace {

std::string command_of(const CLI::App& app) { return app.get_name().substr(app.get_name().rfind(' ') + 1); }

}  // namespace

void fail_unknown(const CLI::App& app) {
  const std::string given = app.remaining().front();
  std::vector<std::string> known;
  for (const CLI::Option* option : app.get_options()) known.push_back(option->get_name());
  const std::string meant = nearest(given.substr(0, given.find('=')), known);
  fail(ExitCode::kUsage, "{}: unknown argument '{}': {}", command_of(app), given,
       meant.empty() ? fmt::format("'{} --help' lists them all", app.get_name())
                     : fmt::format("did you mean {}?", meant));
}

bool parse_flags(CLI::App& app, int argc, char** argv) {
  app.set_help_flag("-h,--help", "Show this text and end");
  try {
    app.parse(argc, argv);
    return true;
  } catch (const CLI::CallForHelp&) {
    fmt::print("{}", help_text(app));
    return false;
  } catch (const CLI::ExtrasError&) {
    fail_unknown(app);
  } catch (const CLI::ParseError& error) {
    fail(ExitCode::kUsage, "{}: {}: '{} --help' tells more", command_of(app), error.what(), app.get_name());
  }
}

}  // namespace trireme
