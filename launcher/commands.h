// The subcommands of `trireme`. Each takes its own name as argv[0] and the arguments after it, prints its
// results, and returns the program's exit code. Each throws Error if it fails, and main() prints the error.
#pragma once

namespace trireme {

int launch_main(int argc, char** argv);
int doctor_main(int argc, char** argv);
int checkpoint_main(int argc, char** argv);
int report_main(int argc, char** argv);
int simulate_main(int argc, char** argv);

// Internal commands, which launch and doctor start. The help does not list them.
int rank_guard_main(int argc, char** argv);
int selftest_mpi_main(int argc, char** argv);

}  // namespace trireme
