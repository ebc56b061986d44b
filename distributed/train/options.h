// Reads and writes a job's options as flags and as a file. job.proto describes every flag.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "distributed/train/job.pb.h"
#include "kernels/error.h"

namespace trireme {

/// A program's description and default options.
struct Program {
  std::string about;    ///< first lines of the help text
  JobOptions defaults;  ///< options of the user replace these
  std::vector<std::string>
      unused;  ///< flags ("--clip-norm") that mean nothing to it, so that none is taken in silence
};

/// Reads a program's command line.
///
/// Options of the user win over the program's defaults, which win over job.proto's. A flag wins over
/// `--config FILE`, and the last of a repeated flag wins over the ones before it. --steps and --epochs are
/// one choice: naming one in a stronger place drops the other from a weaker one. Fields with a default are
/// all set in the result.
///
/// A flag that has no effect beside the other options is an error. A field of the job file that has no effect
/// only adds a line to `notes`, because flags may have overridden the options that it belongs to; it adds
/// none if its value is the default. `notes` may be null.
///
/// Throws Error(kUsage) with one line that names the flag, or the file and line, and the value.
/// Throws Error(kDone) for --help and --print-config: its what() is the text that belongs on standard
/// output, and the program ends with 0.
///
/// Touches no global state: safe from any thread.
JobOptions parse_options(int argc, const char* const* argv, const Program& program = {},
                         std::vector<std::string>* notes = nullptr);

/// Returns all options as a text from which --config reads the same job.
std::string to_text(const JobOptions& job);

/// Reads a text of to_text(), also one that another version wrote.
JobOptions from_text(const std::string& text);

/// A flag and its values in two jobs, in the form in which a user types them.
struct OptionDifference {
  std::string flag, before, after;
};
/// Returns the differences of two jobs in the fields that job.proto marks with `on_resume`.
std::vector<OptionDifference> differences(const JobOptions& before, const JobOptions& after,
                                          FlagSpec::OnResume on_resume);

/// Returns the longest wait for a peer or for data. All deadlines follow from it.
std::chrono::milliseconds patience_of(const JobOptions& job);

/// Checks what only the number of ranks and this build can tell: enough shards for the ranks, a global
/// batch that cuts into equal shards, device and backend at hand. `shards` 0 counts as `world_size`.
/// Throws Error(kUsage) saying which flag to change, and to what.
void validate(const JobOptions& job, int world_size);

}  // namespace trireme
