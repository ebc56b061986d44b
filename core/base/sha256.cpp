#include "core/base/sha256.h"

#include <openssl/evp.h>

#include "kernels/error.h"

namespace trireme {

struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  TRIREME_CHECK(state_->context && EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr) == 1,
                "sha256: OpenSSL offers no SHA-256");
}
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

void Sha256::update(const void* data, std::size_t size) {
  TRIREME_CHECK(EVP_DigestUpdate(state_->context, data, size) == 1, "sha256: OpenSSL failed to hash {} bytes",
                size);
}

std::string Sha256::hex() const {
  State last;  // finishing ends a context, so a copy is finished
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int length = 0;
  TRIREME_CHECK(last.context && EVP_MD_CTX_copy_ex(last.context, state_->context) == 1 &&
                    EVP_DigestFinal_ex(last.context, digest, &length) == 1,
                "sha256: OpenSSL failed to finish a hash");
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(2 * length);
  for (unsigned int i = 0; i < length; ++i) {
    text += kDigits[digest[i] >> 4];
    text += kDigits[digest[i] & 15];
  }
  return text;
}

}  // namespace trireme
