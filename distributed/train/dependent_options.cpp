#include "distributed/train/dependent_options.h"

#include <fmt/format.h>

namespace trireme {

namespace {

/// A field of job.proto that has an effect only in some jobs.
struct Dependence {
  std::string_view field;
  bool (*has_effect)(const JobOptions& job);
  std::string (*cause)(const JobOptions& job);  ///< follows "has no effect" in the message
  std::string_view remedy;                      ///< follows "leave it out, or"
};

// Options without which another one is an error at any value (--init-map needs --init) are in validate().
constexpr Dependence kDependences[] = {
    {"momentum", [](const JobOptions& o) { return o.optimizer() == "sgd" || o.optimizer() == "lars"; },
     [](const JobOptions& o) { return "with --optimizer " + o.optimizer(); }, "use --optimizer sgd or lars"},
    {"powersgd_rank", [](const JobOptions& o) { return o.comm_hook() == "powersgd"; },
     [](const JobOptions& o) { return "with --comm-hook " + o.comm_hook(); }, "use --comm-hook powersgd"},
    {"share_gpu", [](const JobOptions& o) { return o.device() == "cuda"; },
     [](const JobOptions& o) { return "with --device " + o.device(); }, "use --device cuda"},
    {"keep_checkpoints", [](const JobOptions& o) { return !o.checkpoint_dir().empty() || !o.out().empty(); },
     [](const JobOptions&) { return std::string("without a folder for checkpoints"); },
     "give --checkpoint-dir or --out"},
    {"resume", [](const JobOptions& o) { return o.replay_from() == 0; },
     [](const JobOptions& o) {
       return fmt::format("with --replay-from {}, which names the checkpoint", o.replay_from());
     },
     "leave --replay-from out"}};

}  // namespace

std::optional<std::string> why_no_effect(const JobOptions& job, std::string_view field) {
  for (const Dependence& d : kDependences)
    if (d.field == field && !d.has_effect(job))
      return fmt::format("has no effect {}; leave it out, or {}", d.cause(job), d.remedy);
  return {};
}

}  // namespace trireme
