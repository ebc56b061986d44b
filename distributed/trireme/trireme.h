// Everything a training program needs.
#pragma once

#include "core/autograd/autograd.h"
#include "core/data/dataset.h"
#include "core/nn/layers.h"
#include "core/nn/module.h"
#include "core/ops/ops.h"
#include "core/optim/optimizer.h"
#include "core/tensor/tensor.h"
#include "distributed/comm/agree.h"
#include "distributed/ddp/data_parallel.h"
#include "distributed/train/evaluate.h"
#include "distributed/train/job.h"
#include "distributed/train/run.h"
