// Removes Open MPI's own messages from the standard error of ranks.
#pragma once

#include <string>
#include <string_view>

namespace trireme {

/// Filters a stream of text. mpirun frames its messages with lines of 74 dashes. A frame whose first line
/// names MPI, ORTE, PMIx or mpirun is dropped up to its closing line. Single lines of Open MPI such as
/// "[host:pid] PMIX ERROR ..." are dropped, too. Everything else passes unchanged and without delay, except
/// that a line of 74 dashes waits for the next line, and a line that begins with '[' waits for its end. Not
/// thread-safe.
class BannerFilter {
 public:
  /// Takes the next piece of the stream, which may be cut anywhere, and returns the text to show now.
  std::string feed(std::string_view piece);
  /// Ends the stream and returns the text that feed() has held back.
  std::string finish();

 private:
  std::string held_;
  bool at_line_start_ = true;
  bool dropping_ = false;
};

/// Returns the first informative line of the output of mpirun or srun, without the log prefix "trireme: ".
/// Skips blank lines, lines of dashes and ssh's note about a new host key. Returns "" if there is none.
std::string first_telling_line(std::string_view output);

}  // namespace trireme
