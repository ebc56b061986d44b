#include "distributed/train/run.h"

#include <execinfo.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>
#include <optional>

#include "core/base/compiler.h"
#include "core/base/standard_output.h"
#include "distributed/comm/agree.h"
#include "distributed/comm/device_communicator.h"
#include "distributed/comm/local.h"
#include "distributed/comm/mpi.h"
#include "distributed/rendezvous/world.h"
#include "distributed/train/memory.h"
#include "distributed/train/signals.h"

namespace trireme {

namespace {

/// --help and the like are no errors: their text is what was asked for.
void say_once(const Error& e) {
  if (e.code() == ExitCode::kDone)
    std::printf("%s", e.what());
  else
    std::fprintf(stderr, "%s\n", e.what());
}

/// Says what went wrong: once for all ranks if all know it, else with the rank in front. Returns the exit
/// code.
int say_error(const std::exception_ptr& error, const World& world) {
  program_phase() = Phase::kEnding;
  const std::string rank = world.size > 1 ? fmt::format("rank {}: ", world.rank) : "";
  try {
    std::rethrow_exception(error);
  } catch (const AgreedError& e) {
    if (world.rank == 0) say_once(e);
    return static_cast<int>(e.code());
  } catch (const Error& e) {
    const std::string text = e.what();  // what communicators say begins with the rank already
    std::fprintf(stderr, "%s%s\n", text.starts_with(rank) ? "" : rank.c_str(), text.c_str());
    return static_cast<int>(e.code());
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "%s%s\n", rank.c_str(), out_of_memory_text().c_str());
    return static_cast<int>(ExitCode::kUsage);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%sunexpected error: %s\n", rank.c_str(), e.what());
  } catch (...) {
    std::fprintf(stderr, "%sunexpected error: something was thrown that is no std::exception\n",
                 rank.c_str());
  }
  return static_cast<int>(ExitCode::kInternal);
}

/// Parses the arguments, which are the same on every rank. An error in them is thrown as AgreedError on every
/// rank, and rank 0 alone prints the notes.
JobOptions parse_for_all(int argc, char** argv, const Program& program, int rank) {
  try {
    std::vector<std::string> notes;
    JobOptions options = parse_options(argc, argv, program, &notes);
    for (const std::string& note : notes)
      if (rank == 0) std::fprintf(stderr, "%s\n", note.c_str());
    return options;
  } catch (const Error& error) {
    throw AgreedError(error.code(), error.what());
  }
}

void show_frames(int signal) {
  std::array<void*, 64> frames;
  backtrace_symbols_fd(frames.data(), backtrace(frames.data(), frames.size()), STDERR_FILENO);
  std::signal(signal, SIG_DFL);
  raise(signal);
}

/// A crash is told in one line by who started the rank. With TRIREME_BACKTRACE=1 its frames come first.
void install_crash_handlers() {
  if (process_environment()("TRIREME_BACKTRACE").value_or("0") != "1") return;
  void* frame = nullptr;
  backtrace(&frame, 1);  // loads what it needs while the heap is still sound
  for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) std::signal(signal, show_frames);
}

/// Ignores SIGPIPE too: a reader that went away (`| head`) must not end training.
void install_handlers(const JobOptions& options, int rank) {
  const bool keeps_checkpoints = !OutputPaths(options).checkpoints.empty() && options.replay_from() == 0;
  std::signal(SIGPIPE, SIG_IGN);
  install_signal_handlers(rank, keeps_checkpoints, patience_of(options));
  install_crash_handlers();
}

/// This process's rank, over MPI or alone.
class ProcessRuntime final : public JobRuntime {
 public:
  ProcessRuntime(JobOptions options, World world) : options_(std::move(options)), world_(std::move(world)) {
    if (options_.backend() == "local" && world_.size > 1)
      throw AgreedError(
          ExitCode::kUsage,
          fmt::format("--backend local: {} started {} ranks, which would each run a job of their "
                      "own; use trireme launch --backend local -n {}",
                      name_of(world_.source), world_.size, world_.size));
    if (!needs_mpi(world_, options_.backend())) {
      comm_ = make_alone_communicator();
      take_device();
      return;
    }
    const GetEnv env = process_environment();
    if (world_.source == Source::kSlurm && !env("PMIX_RANK") && !env("PMI_RANK"))
      throw AgreedError(
          ExitCode::kUsage,
          "--backend mpi: srun started this task without an MPI plugin, so MPI cannot start; use "
          "srun --mpi=pmix, or --backend auto to train alone");
    session_.emplace(patience_of(options_));
    world_ = confirmed_by_mpi(world_, session_->rank(), session_->size(), session_->local_rank(),
                              session_->local_size());
    comm_ = make_mpi_communicator(patience_of(options_));
    take_device();
  }
  Communicator& comm() override { return *comm_; }
  const JobOptions& options() const override { return options_; }
  const World& world() const { return world_; }

 private:
  void take_device() {
    if (options_.device() == "cuda")
      agree(*comm_, "GPUs",
            [&] { take_gpu(world_.rank, world_.local_rank, world_.local_size, options_.share_gpu()); });
  }

  JobOptions options_;
  World world_;
  std::optional<MpiSession> session_;
  std::unique_ptr<HostCommunicator> comm_;
};

/// Returns the exit code of what all ranks know alike; other errors pass.
int run_in_process(const JobOptions& options, World& world, const std::function<void(Job&)>& body) {
  ProcessRuntime runtime(options, world);
  world = runtime.world();
  try {
    Job job(options, runtime.comm());
    body(job);
    program_phase() = Phase::kEnding;
    return 0;
  } catch (const AgreedError&) {
    return say_error(std::current_exception(),
                     world);  // all ranks are here, so MPI can be finalized in peace
  }
}

int run_ranks(const JobOptions& options, World& world, const std::function<void(Job&)>& body) {
  if (world.source != Source::kThreads) return run_in_process(options, world, body);
  if (options.backend() != "auto" && options.backend() != "local")
    fail(ExitCode::kUsage, "--backend {} cannot serve ranks that are threads; use --backend local",
         options.backend());
  if (options.device() == "cuda" && world.size > 1)
    fail(ExitCode::kUsage,
         "--device cuda: {} ranks that are threads cannot have a GPU each; use mpirun, srun or `trireme "
         "launch "
         "--backend mpi`",
         world.size);
  run_local_ranks(world.size, patience_of(options), [&](Communicator& comm) {
    Job job(options, comm);
    body(job);
  });
  return 0;
}

/// Ends this process's part of MPI in haste. MPI_Abort would kill all others too, and with them every trace
/// of who failed and who only waited; `trireme launch` ends them itself.
void leave_mpi(int code) {
  std::fflush(nullptr);
  if (process_environment()("TRIREME_RESTART")) std::_Exit(code);
  MpiSession::abort_if_running(static_cast<ExitCode>(code));
}

World main_world;  // of the handler below

[[noreturn]] void say_and_end() {
  const int code = std::current_exception() ? say_error(std::current_exception(), main_world) : 1;
  leave_mpi(code);
  std::_Exit(code);
}

}  // namespace

int run(int argc, char** argv, const Program& program, const std::function<void(Job&)>& body) {
  hold_standard_files();
  World world;
  try {
    world = detect_world(process_environment());
    const JobOptions options = parse_for_all(argc, argv, program, world.rank);
    install_handlers(options, world.rank);
    return checked_output(run_ranks(options, world, body));
  } catch (const AgreedError&) {
    return checked_output(say_error(std::current_exception(), world));
  } catch (...) {
    const int code = say_error(std::current_exception(), world);
    leave_mpi(code);
    return code;
  }
}

std::unique_ptr<JobRuntime> JobRuntime::from_main(int argc, char** argv, const Program& program) {
  std::set_terminate(say_and_end);
  main_world = detect_world(process_environment());
  JobOptions options = parse_for_all(argc, argv, program, main_world.rank);
  if (main_world.source == Source::kThreads)
    fail(ExitCode::kUsage,
         "this program cannot run its ranks as threads; start it with `trireme launch --backend mpi`, or "
         "let its main call trireme::run");
  install_handlers(options, main_world.rank);
  // Its main returns an exit code that knows nothing of what was lost on standard output.
  on_exit(
      [](int code, void*) {
        if (checked_output(code) != code) std::_Exit(static_cast<int>(ExitCode::kInternal));
      },
      nullptr);
  return std::make_unique<ProcessRuntime>(std::move(options), main_world);
}

std::string build_description() {
  return fmt::format("{}, {}", compiler_name(), kernels_of(kCpu).libraries());
}

}  // namespace trireme
