// Differentiable operations. Names, arguments and defaults follow PyTorch's functional interface.
//
// Every op checks its arguments and throws an Error that names the op, both shapes (or dtypes) and the rule.
// Tensors of one call share the device, and the dtype unless the op says otherwise. Results are new tensors
// unless the op says "view".
// One header per family, and beside it the files that hold forward and backward side by side.
#pragma once

#include "core/ops/attention.h"
#include "core/ops/conv.h"
#include "core/ops/create.h"
#include "core/ops/elementwise.h"
#include "core/ops/index.h"
#include "core/ops/linear.h"
#include "core/ops/loss.h"
#include "core/ops/norm.h"
#include "core/ops/recurrent.h"
#include "core/ops/reduce.h"
#include "core/ops/shape.h"
