#include "distributed/checkpoint/random_name.h"

#include <fmt/format.h>

#include <random>

namespace trireme {

std::string random_name() {
  std::random_device device;
  return fmt::format("{:08x}{:08x}", device(), device());
}

}  // namespace trireme
