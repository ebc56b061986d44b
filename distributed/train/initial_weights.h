// Reads the initial weights that --init names.
#pragma once

#include <vector>

#include "core/nn/module.h"
#include "distributed/comm/communicator.h"
#include "distributed/train/job.pb.h"

namespace trireme {

/// Reads --init on every rank, which is collective, into `weights`, which are named "<model>.<path>". Without
/// --init-map the file has the same names, as `trireme checkpoint export` writes them, or just the paths if
/// there is one model; a map is written with the paths then. Throws the same Error on all ranks if the file
/// does not fit or is not the same everywhere.
void load_initial_weights(Communicator& comm, const JobOptions& options, std::vector<NamedTensor> weights);

}  // namespace trireme
