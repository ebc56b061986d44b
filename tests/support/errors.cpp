#include "tests/support/errors.h"

#include <gtest/gtest.h>

namespace trireme::test {

void expect_holds(const std::string& message, std::initializer_list<const char*> parts) {
  for (const char* part : parts)
    EXPECT_NE(message.find(part), std::string::npos) << part << " in: " << message;
}

}  // namespace trireme::test
