#include "distributed/comm/communicator.h"

#include "distributed/comm/memory.h"

namespace trireme {

std::shared_ptr<std::byte> Communicator::allocate(std::size_t bytes) {
  const auto memory = std::make_shared<DeviceMemory>(device(), bytes);
  return {memory, memory->get()};
}

}  // namespace trireme
