// The subcommands of `trireme`. Each takes the arguments after its own name (argv[0] is that name),
// prints what it has to say, and returns the program's exit code. Errors are thrown, main prints them.
#pragma once

namespace trireme {

int launch_main(int argc, char** argv);
int doctor_main(int argc, char** argv);
int checkpoint_main(int argc, char** argv);
int report_main(int argc, char** argv);
int simulate_main(int argc, char** argv);

// Not for users: these are started by launch and doctor.
int rank_guard_main(int argc, char** argv);
int selftest_mpi_main(int argc, char** argv);

}  // namespace trireme
