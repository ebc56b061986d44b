// An MPI program whose rank 1 fails in the way that the program's argument names, while the other ranks wait
// for it.
#include <mpi.h>
#include <signal.h>
#include <unistd.h>

#include <string>

int main(int argc, char** argv) {
  const std::string how = argc > 1 ? argv[1] : "well";
  int granted = 0, rank = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &granted);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Barrier(MPI_COMM_WORLD);
  if (rank == 1) {
    if (how == "kill") raise(SIGKILL);
    if (how == "segv") raise(SIGSEGV);
    if (how == "abort") MPI_Abort(MPI_COMM_WORLD, 6);
    if (how == "leave") _exit(3);
  }
  MPI_Barrier(MPI_COMM_WORLD);
  MPI_Finalize();
  return 0;
}
