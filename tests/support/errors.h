// Checks of error messages.
#pragma once

#include <exception>
#include <initializer_list>
#include <string>

namespace trireme::test {

/// Runs fn and returns the message of the exception that it throws, or "nothing was thrown".
template <class Fn>
std::string error_of(const Fn& fn) {
  try {
    fn();
  } catch (const std::exception& e) {
    return e.what();
  }
  return "nothing was thrown";
}

/// Fails the running test for each of `parts` that the message does not contain.
void expect_holds(const std::string& message, std::initializer_list<const char*> parts);

}  // namespace trireme::test
