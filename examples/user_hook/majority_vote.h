// An example of a user's own comm hook: signSGD with majority vote. Every shard sends the signs of its
// gradient in 16 bits, and the sign that most shards have is the direction of the step. J. Bernstein, J.
// Zhao, K. Azizzadenesheli, A. Anandkumar, "signSGD with majority vote is communication efficient and fault
// tolerant", 2019.
#pragma once

#include <trireme/trireme.h>

#include <vector>

namespace trireme {

/// Sets the bucket's mean gradient to the sign of the sum of all shards' signs. Sums of up to 256 signs are
/// exact in bfloat16, so the result has the same bits at any world size.
inline void majority_vote(GradientBucket& bucket) {
  const NoGrad off;
  std::vector<Tensor> votes;
  for (const Tensor& part : bucket.parts()) votes.push_back(to(sign(part), DType::kBFloat16));
  const Tensor sum = Tensor::empty_like(votes[0]);
  bucket.sum(votes, sum);
  bucket.run([sum, mean = bucket.mean()] {
    const NoGrad here;
    copy_into(mean, sign(to(sum, DType::kFloat32)));
  });
}

}  // namespace trireme
