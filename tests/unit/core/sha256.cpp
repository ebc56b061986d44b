#include "core/base/sha256.h"

#include <gtest/gtest.h>

#include <string>

namespace trireme {
namespace {

// The expected values are from FIPS 180-2, appendix B.
TEST(Sha256, KnownValues) {
  EXPECT_EQ(Sha256().hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  Sha256 abc;
  abc.update("abc", 3);
  EXPECT_EQ(abc.hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  Sha256 million;
  const std::string part(1000, 'a');
  for (int i = 0; i < 1000; ++i) million.update(part.data(), part.size());
  EXPECT_EQ(million.hex(), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, HexCanBeAskedForInTheMiddle) {
  Sha256 hash;
  hash.update("a", 1);
  EXPECT_NE(hash.hex(), Sha256().hex());
  EXPECT_EQ(hash.hex(), hash.hex());
  hash.update("bc", 2);
  Sha256 moved = std::move(hash);
  EXPECT_EQ(moved.hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

}  // namespace
}  // namespace trireme
