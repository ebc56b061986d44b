#include "distributed/comm/communicator.h"

#include "distributed/comm/memory.h"

namespace trireme {

std::shared_ptr<std::byte> Communicator::allocate(std::size_t bytes) {
  const auto memory = std::make_shared<DeviceMemory>(device(), bytes);
  return {memory, memory->get()};
}

Event Communicator::all_gather_each(std::vector<std::vector<std::span<std::byte>>> sets,
                                    std::function<void(std::size_t)> arrived, std::string label) {
  Event last;
  for (std::size_t k = 0; k < sets.size(); ++k) {
    all_gather(sets[k], label);
    last = run([arrived, k] { arrived(k); }, label);
  }
  return last;
}

}  // namespace trireme
