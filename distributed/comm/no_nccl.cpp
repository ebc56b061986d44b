// Stands in for NCCL in a build without it.
#include "distributed/comm/device_communicator.h"

namespace trireme {

std::shared_ptr<DeviceTransport> make_nccl_transport(Communicator&, std::chrono::milliseconds) {
  fail(ExitCode::kUsage, "device cuda: this build has no NCCL, so it can use one rank only");
}

}  // namespace trireme
