// Describes to cuDNN a GPU that this machine does not have, so that cuDNN chooses kernels for that GPU.
#pragma once

#include <string>

namespace trireme::test {

/// Returns the description of a GPU in cuDNN's format, which is not documented. The choice of kernels depends
/// on `compute_capability`, which is 900 for 9.0.
inline std::string described_gpu(int compute_capability, int processors, int shared_memory) {
  return R"({"deviceVer":)" + std::to_string(compute_capability) +
         R"(,"driverVer":13000,"cudaDeviceId":0,"deviceName":"described","totalGlobalMem":85000000000,)"
         R"("maxGridSize":[2147483647,65535,65535],"maxBlockSize":[1024,1024,64],"regsPerBlock":65536,)"
         R"("multiProcessorCount":)" +
         std::to_string(processors) +
         R"(,"warpSize":32,"maxSharedMemoryPerBlock":49152,)"
         R"("maxSharedMemoryPerBlockOptin":)" +
         std::to_string(shared_memory) +
         R"(,"reservedSharedMemoryPerBlock":1024,"maxRegistersPerSM":65536,)"
         R"("maxCtasPerSM":32,"maxThreadsPerBlock":1024,"maxThreadsPerSM":2048,"pciDeviceId":0,"isTccDriver":0,)"
         R"("supportCoopLaunch":1,"smClockRateKHz":1980000,"memClockRateKHz":2619000,"l2CacheSize":52428800})";
}

}  // namespace trireme::test
