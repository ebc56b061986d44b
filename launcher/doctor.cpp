#include "launcher/commands.h"
namespace trireme { int doctor_main(int, char**) { return 0; } int selftest_mpi_main(int, char**) { return 0; } }
