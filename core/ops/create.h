// Tensors made from nothing, and random ones. See ops.h for the rules of all ops.
#pragma once

#include <cstdint>

#include "core/tensor/tensor.h"
#include "kernels/rng.h"

namespace trireme {

// --- create.cpp
/// start, start + step, ... up to but without `end`.
Tensor arange(Scalar start, Scalar end, Scalar step = 1, DType dtype = DType::kFloat32, Device device = kCpu);
/// Numbers at equal distances, both ends included. Integers are cut towards 0.
Tensor linspace(Scalar start, Scalar end, std::int64_t steps, DType dtype = DType::kFloat32,
                Device device = kCpu);
Tensor eye(std::int64_t rows, std::int64_t columns, DType dtype = DType::kFloat32, Device device = kCpu);

// --- random.cpp --------------------------------------------------------------------------------------------
/// Zeroes elements with probability p and scales the rest by 1/(1-p). x's dimension 0 is the sample; element
/// e of sample s depends on (key, first_sample + s, e) alone.
Tensor dropout(const Tensor& x, double p, RandomKey key, std::int64_t first_sample = 0);
Tensor uniform(const Shape& shape, RandomKey key, double low = 0, double high = 1,
               DType dtype = DType::kFloat32);
Tensor normal(const Shape& shape, RandomKey key, double mean = 0, double std = 1,
              DType dtype = DType::kFloat32);

}  // namespace trireme
