// The layers that models are built from. Arguments, defaults and initial values are PyTorch's.
#pragma once

#include "core/nn/activation.h"
#include "core/nn/attention.h"
#include "core/nn/basic_block.h"
#include "core/nn/conv.h"
#include "core/nn/dropout.h"
#include "core/nn/init.h"
#include "core/nn/linear.h"
#include "core/nn/module.h"
#include "core/nn/norm.h"
#include "core/nn/recurrent.h"
#include "core/nn/state.h"
#include "core/nn/transformer.h"
