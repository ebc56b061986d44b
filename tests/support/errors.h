// What a failing call says.
#pragma once

#include <exception>
#include <initializer_list>
#include <string>

namespace trireme::test {

/// The message of what fn throws.
template <class Fn>
std::string error_of(const Fn& fn) {
  try {
    fn();
  } catch (const std::exception& e) {
    return e.what();
  }
  return "nothing was thrown";
}

/// Fails the running test for each part that the message lacks.
void expect_holds(const std::string& message, std::initializer_list<const char*> parts);

}  // namespace trireme::test
