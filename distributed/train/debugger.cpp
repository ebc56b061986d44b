#include "distributed/train/debugger.h"

#include <csignal>
#include <fstream>
#include <string>

namespace trireme {

bool has_debugger() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("TracerPid:")) return line.find_first_of("123456789") != line.npos;
  return false;
}

void stop_in_debugger() {
  if (has_debugger()) std::raise(SIGTRAP);
}

}  // namespace trireme
