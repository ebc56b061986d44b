// The sizes of one 2-D convolution. Include only from kernels/cpu.
#pragma once

#include "kernels/table.h"

namespace trireme::cpu {

/// x (n,c,h,w), y (n,o,oh,ow).
struct Conv {
  std::int64_t n, c, h, w, o, oh, ow, groups;
  Window window;
};

}  // namespace trireme::cpu
