// Takes Open MPI's own framed messages out of the error output of ranks.
#pragma once

#include <string>
#include <string_view>

namespace trireme {

/// mpirun frames its messages with lines of 74 dashes. A frame whose first line speaks of MPI, ORTE,
/// PMIx or mpirun is dropped up to its closing line; everything else passes unchanged and at once
/// (a line of 74 dashes waits for the line after it). Not thread-safe.
class BannerFilter {
 public:
  /// Takes the next piece of output, cut anywhere; returns what may be shown now.
  std::string feed(std::string_view piece);
  /// The output is over: returns what was held back.
  std::string finish();

 private:
  std::string held_;
  bool at_line_start_ = true;
  bool dropping_ = false;
};

/// The first line of mpirun's or srun's output that says something, frames and log prefixes aside.
std::string first_telling_line(std::string_view output);

}  // namespace trireme
