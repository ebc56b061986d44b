// The checks of `trireme doctor`. Each examines one property of this machine and returns a finding.
#pragma once

#include <map>
#include <span>
#include <string>

namespace trireme {

enum class Mark {
  kOk,
  kNone,  ///< absent, which is not a fault
  kWarn,  ///< training works, but less well than it could
  kFail,  ///< this machine cannot train
};

struct Finding {
  Mark mark = Mark::kOk;
  std::string value;                      ///< description of the finding for people
  std::string advice;                     ///< action that the user should take; may be empty
  std::map<std::string, double> figures;  ///< measurements for programs; names contain the unit
};

struct Check {
  const char* name;
  int deadline_s;     ///< seconds; a check runs in its own process and fails if it takes longer
  Finding (*look)();  ///< may throw; the error's text then becomes a finding with kFail
};

/// Return the checks of the machine and of the programs that start ranks, in the order of the output.
std::span<const Check> machine_checks();
std::span<const Check> rank_checks();

}  // namespace trireme
