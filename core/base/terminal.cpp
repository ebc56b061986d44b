#include "core/base/terminal.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <string>
#include <string_view>

namespace trireme {

namespace {

/// Returns the columns of the terminal on which mpirun, our parent, has its standard error; 0 without one.
/// mpirun reads ours through a pipe and writes it there as it comes.
int columns_of_mpirun() {
  if (!std::getenv("OMPI_COMM_WORLD_SIZE")) return 0;
  const std::string parent = "/proc/" + std::to_string(getppid());
  std::string name;
  std::getline(std::ifstream(parent + "/comm") >> std::ws, name);
  if (name != "mpirun" && name != "orterun" && name != "prterun" && name != "mpiexec") return 0;
  const int file = open((parent + "/fd/2").c_str(), O_RDONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
  if (file < 0) return 0;
  const int columns = terminal_columns(file);
  close(file);
  return columns;
}

}  // namespace

int terminal_columns(int descriptor) {
  const char* term = std::getenv("TERM");
  if (isatty(descriptor) != 1 || !term || std::string_view(term) == "dumb") return 0;
  winsize size{};
  return ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col : 80;
}

int columns_of_standard_error() {
  if (const int columns = terminal_columns(STDERR_FILENO); columns > 0) return columns;
  struct stat status {};
  if (fstat(STDERR_FILENO, &status) != 0 || !S_ISFIFO(status.st_mode)) return 0;  // a launcher reads a pipe
  if (const char* told = std::getenv(kColumnsVariable)) return std::max(0, std::atoi(told));
  return columns_of_mpirun();
}

bool may_use_colours() {
  const char* value = std::getenv("NO_COLOR");
  return !value || !*value;
}

}  // namespace trireme
