// The checks of `trireme doctor`. Each looks at one thing of this machine and says what it found.
#pragma once

#include <map>
#include <span>
#include <string>

namespace trireme {

enum class Mark {
  kOk,
  kNone,  ///< absent, and that is no fault
  kWarn,  ///< training works, but worse than it could
  kFail,  ///< this machine cannot train
};

struct Finding {
  Mark mark = Mark::kOk;
  std::string value;                      ///< what was found, for people
  std::string advice;                     ///< what to do; empty when nothing is to be done
  std::map<std::string, double> figures;  ///< for machines; the unit is in the name
};

struct Check {
  const char* name;
  int deadline_s;     ///< a check runs in a process of its own and fails when it takes longer
  Finding (*look)();  ///< may throw: the error's text becomes a failure
};

/// In the order in which they are shown.
std::span<const Check> machine_checks();
std::span<const Check> rank_checks();

}  // namespace trireme
