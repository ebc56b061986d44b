// SHA-256: names the content of a file or of a training state.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

namespace trireme {

/// Hashes a stream of bytes. Movable, not copyable; one thread at a time.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  void update(const void* data, std::size_t size);
  /// 64 lower-case hexadecimal digits of everything given so far. More may be given afterwards.
  std::string hex() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace trireme
