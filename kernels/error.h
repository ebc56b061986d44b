// Errors: a message of one line, which names the operation, the values and what to do, and an exit code.
//
// A library never exits. It throws Error; a program's main turns it into one line on standard
// error and the exit code (see INTERFACE: exit codes).
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace trireme {

/// Exit codes of every program.
enum class ExitCode : int {
  kDone = 0,
  kInternal = 1,    ///< a broken rule of the library's own interface: wrong shapes, dtypes, ...
  kUsage = 2,       ///< bad flag, configuration or environment
  kData = 3,        ///< bad data set
  kCheckpoint = 4,  ///< bad checkpoint
  kPeer = 5,        ///< a peer failed or timed out
  kNonFinite = 6,   ///< a loss or gradient became infinite or NaN
  kStopped = 75,    ///< stopped by a signal after a committed checkpoint: run again to go on
};

class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& what) : std::runtime_error(what), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

/// An error that every rank throws at the same place. Only rank 0 prints it.
class AgreedError : public Error {
 public:
  using Error::Error;
};

/// Throws Error with a formatted message. The message is one line without a final full stop.
template <class... Args>
[[noreturn]] void fail(ExitCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace trireme

/// Throws Error(kInternal, message) unless `condition` holds. The message is formatted only then.
#define TRIREME_CHECK(condition, ...)                               \
  do {                                                              \
    if (!(condition)) [[unlikely]]                                  \
      ::trireme::fail(::trireme::ExitCode::kInternal, __VA_ARGS__); \
  } while (false)
