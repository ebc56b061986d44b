#include "distributed/train/options.h"

#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/text_format.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <deque>
#include <optional>
#include <vector>

#include "core/base/nearest.h"
#include "core/base/text_file.h"
#include "distributed/train/dependent_options.h"
#include "distributed/train/flags_elsewhere.h"
#include "distributed/train/help.h"
#include "kernels/table.h"

namespace trireme {
namespace {

namespace pb = google::protobuf;
using Type = pb::FieldDescriptor::CppType;

std::string flag_name(const std::string& field) {
  std::string name = "--" + field;
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

const FlagSpec& spec_of(const pb::FieldDescriptor& field) {
  return field.options().GetExtension(FlagSpec::flag);
}

std::string join(const pb::RepeatedPtrField<std::string>& words, std::string_view separator) {
  return fmt::format("{}", fmt::join(words, separator));
}

std::vector<const pb::FieldDescriptor*> job_fields() {
  const pb::Descriptor& job = *JobOptions::descriptor();
  std::vector<const pb::FieldDescriptor*> fields;
  for (int i = 0; i < job.field_count(); ++i) fields.push_back(job.field(i));
  return fields;
}

bool is_unused(const Program& program, const std::string& flag) {
  return std::find(program.unused.begin(), program.unused.end(), flag) != program.unused.end();
}

/// Throws Error(kUsage): no such flag, and the one that was probably meant.
[[noreturn]] void fail_unknown(const std::string& argument, const Program& program) {
  if (argument.size() < 2 || argument[0] != '-') {
    fail(ExitCode::kUsage, "unexpected argument '{}': flags start with --; --help lists them all", argument);
  }
  const std::string given = argument.substr(0, argument.find('='));
  if (is_unused(program, given)) fail(ExitCode::kUsage, "{}: this program has no use for it", given);
  std::string plain =
      given.substr(given.find_first_not_of('-') == given.npos ? 0 : given.find_first_not_of('-'));
  std::ranges::replace(plain, '_', '-');
  for (const auto& [theirs, ours] : kKnownElsewhere)
    if (plain == theirs && !is_unused(program, std::string(ours)))
      fail(ExitCode::kUsage, "unknown flag {}: it is called {} here{}", given, ours,
           ours == "--global-batch" ? ", and counts the samples of all ranks together" : "");
  std::vector<std::string> known = {"--config", "--print-config", "--help"};
  for (const auto* field : job_fields()) known.push_back(flag_name(field->name()));
  if (const std::string meant = nearest(given, known); !meant.empty()) {
    fail(ExitCode::kUsage, "unknown flag {}: did you mean {}?", given, meant);
  }
  fail(ExitCode::kUsage, "unknown flag {}: --help lists them all", given);
}

template <class Number>
Number to_number(const std::string& where, const std::string& text, std::string_view kind) {
  Number number{};
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error == std::errc::result_out_of_range) {
    fail(ExitCode::kUsage, "{} {}: is too large or too small to hold", where, text);
  }
  if (error != std::errc() || stop != end) fail(ExitCode::kUsage, "{} '{}': must be {}", where, text, kind);
  return number;
}

bool to_bool(const std::string& where, const std::string& text) {
  if (text.empty() || text == "on" || text == "true") return true;  // empty: the bare flag
  if (text == "off" || text == "false") return false;
  fail(ExitCode::kUsage, "{} '{}': must be on or off", where, text);
}

/// Sets one field from the text of its flag.
void set_field(JobOptions& job, const pb::FieldDescriptor* field, const std::string& text) {
  const pb::Reflection& set = *job.GetReflection();
  const std::string where = flag_name(field->name());
  switch (field->cpp_type()) {
    case Type::CPPTYPE_BOOL:
      return set.SetBool(&job, field, to_bool(where, text));
    case Type::CPPTYPE_DOUBLE:
      return set.SetDouble(&job, field, to_number<double>(where, text, "a number"));
    case Type::CPPTYPE_INT64:
      return set.SetInt64(&job, field, to_number<std::int64_t>(where, text, "a whole number"));
    case Type::CPPTYPE_UINT64:
      return set.SetUInt64(&job, field,
                           to_number<std::uint64_t>(where, text, "a whole number, not negative"));
    case Type::CPPTYPE_STRING:
      return set.SetString(&job, field, text);
    default:
      fail(ExitCode::kInternal, "job.proto: {} has a type that no flag can have", field->name());
  }
}

/// The value as a user would type it.
std::string value_text(const JobOptions& job, const pb::FieldDescriptor* field) {
  const pb::Reflection& get = *job.GetReflection();
  switch (field->cpp_type()) {
    case Type::CPPTYPE_BOOL:
      return get.GetBool(job, field) ? "on" : "off";
    case Type::CPPTYPE_DOUBLE:
      return fmt::format("{}", get.GetDouble(job, field));
    case Type::CPPTYPE_INT64:
      return fmt::format("{}", get.GetInt64(job, field));
    case Type::CPPTYPE_UINT64:
      return fmt::format("{}", get.GetUInt64(job, field));
    default:
      return get.GetString(job, field);
  }
}

/// Throws Error(kUsage) unless the field's value keeps to what job.proto allows. `where` names its source.
void check_field(const JobOptions& job, const pb::FieldDescriptor* field, const std::string& where) {
  const pb::Reflection& get = *job.GetReflection();
  const FlagSpec& spec = spec_of(*field);
  if (field->cpp_type() == Type::CPPTYPE_STRING) {
    const std::string value = get.GetString(job, field);
    const auto& allowed = spec.one_of();
    if (!allowed.empty() && std::find(allowed.begin(), allowed.end(), value) == allowed.end()) {
      fail(ExitCode::kUsage, "{} '{}': must be {}", where, value, join(allowed, ", "));
    }
    return;
  }
  double value = 0;
  if (field->cpp_type() == Type::CPPTYPE_INT64) value = static_cast<double>(get.GetInt64(job, field));
  if (field->cpp_type() == Type::CPPTYPE_DOUBLE) value = get.GetDouble(job, field);
  const std::string text = value_text(job, field);
  if (!std::isfinite(value)) fail(ExitCode::kUsage, "{} {}: must be finite", where, text);
  if (spec.has_min() && value < spec.min()) {
    fail(ExitCode::kUsage, "{} {}: must be at least {}", where, text, spec.min());
  }
  if (spec.has_max() && value > spec.max()) {
    fail(ExitCode::kUsage, "{} {}: must be at most {}", where, text, spec.max());
  }
}

/// Adds what a stronger place says. --steps and --epochs are one choice.
void overlay(JobOptions& job, const JobOptions& stronger, const std::string& where) {
  if (stronger.has_steps() && stronger.has_epochs()) {
    fail(ExitCode::kUsage, "{} gives steps {} and epochs {}: give one of them", where, stronger.steps(),
         stronger.epochs());
  }
  if (stronger.has_steps()) job.clear_epochs();
  if (stronger.has_epochs()) job.clear_steps();
  job.MergeFrom(stronger);
}

/// Remembers the first thing wrong in a text.
class FirstError : public pb::io::ErrorCollector {
 public:
  void AddError(int line, pb::io::ColumnNumber, const std::string& message) override {
    if (!message_) line_ = line, message_ = message;
  }
  void AddWarning(int, pb::io::ColumnNumber, const std::string&) override {}
  int line() const { return line_ + 1; }  // protobuf counts from 0
  const std::string& message() const { return *message_; }

 private:
  int line_ = 0;
  std::optional<std::string> message_;
};

/// Reads a job file. `base` is the job without the file: the file may repeat its values of flags that the
/// program does not use, and a pipe's writer has its patience.
JobOptions read_config(const std::string& path, const Program& program, const JobOptions& base) {
  std::string text;
  try {
    text = read_text(path, ExitCode::kUsage, patience_of(base));
  } catch (const Error& error) {
    fail(error.code(), "--config {}", error.what());
  }
  JobOptions job;
  FirstError error;
  pb::TextFormat::ParseInfoTree lines;
  pb::TextFormat::Parser parser;
  parser.RecordErrorsTo(&error);
  parser.WriteLocationsTo(&lines);
  if (!parser.ParseFromString(text, &job)) {
    fail(ExitCode::kUsage, "{}:{}: {}", path, error.line(), error.message());
  }
  for (const auto* field : job_fields()) {
    if (!job.GetReflection()->HasField(job, field)) continue;
    const std::string where =
        fmt::format("{}:{}: {}", path, lines.GetLocation(field, -1).line + 1, field->name());
    if (is_unused(program, flag_name(field->name())) && value_text(job, field) != value_text(base, field))
      fail(ExitCode::kUsage, "{}: this program has no use for it", where);
    check_field(job, field, where);
  }
  return job;
}

/// Sets every field that has a default and no value.
void fill_defaults(JobOptions& job) {
  JobOptions all;
  const pb::Reflection& set = *all.GetReflection();
  for (const auto* field : job_fields()) {
    if (!field->has_default_value()) continue;
    switch (field->cpp_type()) {
      case Type::CPPTYPE_BOOL:
        set.SetBool(&all, field, field->default_value_bool());
        break;
      case Type::CPPTYPE_DOUBLE:
        set.SetDouble(&all, field, field->default_value_double());
        break;
      case Type::CPPTYPE_INT64:
        set.SetInt64(&all, field, field->default_value_int64());
        break;
      case Type::CPPTYPE_UINT64:
        set.SetUInt64(&all, field, field->default_value_uint64());
        break;
      default:
        set.SetString(&all, field, field->default_value_string());
        break;
    }
  }
  overlay(all, job, "the program");
  job = std::move(all);
}

/// One flag on the command line, and the text that was given for it.
struct Flag {
  const pb::FieldDescriptor* field = nullptr;
  std::string text;
  CLI::Option* option = nullptr;
};

void add_flags(CLI::App& app, std::deque<Flag>& flags, const JobOptions& defaults, const Program& program) {
  std::string group = "Job";
  for (const auto* field : job_fields()) {
    const FlagSpec& spec = spec_of(*field);
    if (spec.has_group()) group = spec.group();
    if (is_unused(program, flag_name(field->name()))) continue;
    const bool is_switch = field->cpp_type() == Type::CPPTYPE_BOOL;
    const std::string allowed = is_switch ? "on|off" : join(spec.one_of(), "|");
    const std::string preset =
        defaults.GetReflection()->HasField(defaults, field) ? value_text(defaults, field) : "";
    const std::string doc = preset.empty() ? spec.doc() : fmt::format("{} (default {})", spec.doc(), preset);
    Flag& flag = flags.emplace_back();
    flag.field = field;
    flag.option = app.add_option(flag_name(field->name()), flag.text, doc)
                      ->type_name(allowed.empty() ? spec.value() : allowed)
                      ->group(group)
                      ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
    if (is_switch) flag.option->expected(0, 1);
  }
}

/// Runs CLI11; its exceptions become ours.
void parse_command_line(CLI::App& app, int argc, const char* const* argv, const Program& program) {
  try {
    app.parse(argc, const_cast<char**>(argv));
  } catch (const CLI::CallForHelp&) {
    throw Error(ExitCode::kDone, help_text(app));
  } catch (const CLI::ArgumentMismatch& error) {
    const std::string message = error.what();  // "--steps: 1 required N missing"
    fail(ExitCode::kUsage, "{} needs a value", message.substr(0, message.find(':')));
  } catch (const CLI::ParseError& error) {
    std::string message = error.what();
    std::replace(message.begin(), message.end(), '\n', ' ');
    fail(ExitCode::kUsage, "{}", message);
  }
  // CLI11 takes a following flag for the value that was forgotten.
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& value : option->results()) {
      if (value.starts_with("--")) {
        fail(ExitCode::kUsage, "{} needs a value, but {} follows", option->get_name(), value);
      }
    }
  }
  const std::vector<std::string> unknown = app.remaining();
  if (!unknown.empty()) fail_unknown(unknown.front(), program);
}

/// Throws Error(kUsage) if a flag in `given` has no effect in the job. Adds a line to `notes` for each field
/// that has no effect and whose value comes from the file `config`. Values that switch an option off are
/// accepted.
void check_effects(const JobOptions& job, const JobOptions& given, const JobOptions& defaults,
                   const std::string& config, std::vector<std::string>* notes) {
  for (const auto* field : job_fields()) {
    const std::optional<std::string> why = why_no_effect(job, field->name());
    const std::string value = value_text(job, field);
    if (!why || value == "off" || value == "0" || value == "auto") continue;
    if (given.GetReflection()->HasField(given, field))
      fail(ExitCode::kUsage, "{} {}: {}", flag_name(field->name()), value, *why);
    if (notes && !config.empty() && value != value_text(defaults, field))
      notes->push_back(fmt::format("{}: {} {}: {}", config, field->name(), value, *why));
  }
}

}  // namespace

JobOptions parse_options(int argc, const char* const* argv, const Program& program,
                         std::vector<std::string>* notes) {
  for (const std::string& flag : program.unused)
    TRIREME_CHECK(
        std::ranges::any_of(job_fields(), [&](auto* field) { return flag_name(field->name()) == flag; }),
        "{} is no flag that a program could have no use for", flag);
  JobOptions job = program.defaults;
  fill_defaults(job);
  const JobOptions defaults = job;
  CLI::App app{program.about};
  app.set_help_flag("-h,--help", "Show this text and end");
  app.allow_extras();
  std::string config;
  bool print_config = false;
  const CLI::Option* from_file =
      app.add_option("--config", config, "Read the job from this text file; flags win over it")
          ->type_name("FILE")
          ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  app.add_flag("--print-config", print_config, "Print the whole job as --config reads it, and end");
  std::deque<Flag> flags;
  add_flags(app, flags, job, program);
  parse_command_line(app, argc, argv, program);

  JobOptions given, file;
  for (const Flag& flag : flags) {
    if (flag.option->count() == 0) continue;
    set_field(given, flag.field, flag.text);
    check_field(given, flag.field, flag_name(flag.field->name()));
  }
  if (from_file->count() > 1)
    fail(ExitCode::kUsage, "--config {}: --config is given {} times, and a job has one file; join the files",
         config, from_file->count());
  if (from_file->count() > 0) {
    JobOptions base = job;
    if (given.has_patience()) base.set_patience(given.patience());
    file = read_config(config, program, base);
    overlay(job, file, config);
  }
  overlay(job, given, "the command line");
  // A program's own warm-up is for the schedules that have one.
  if (job.schedule() == "onecycle" && !given.has_warmup_steps() && !file.has_warmup_steps())
    job.set_warmup_steps(0);
  check_effects(job, given, defaults, config, notes);
  if (print_config) throw Error(ExitCode::kDone, to_text(job));
  return job;
}

std::string to_text(const JobOptions& job) {
  std::string text;
  pb::TextFormat::PrintToString(job, &text);
  return text;
}

JobOptions from_text(const std::string& text) {
  JobOptions job;
  pb::TextFormat::Parser parser;
  parser.AllowUnknownField(true);
  FirstError ignored;
  parser.RecordErrorsTo(&ignored);
  parser.ParseFromString(text, &job);
  fill_defaults(job);
  return job;
}

std::vector<OptionDifference> differences(const JobOptions& before, const JobOptions& after,
                                          FlagSpec::OnResume on_resume) {
  std::vector<OptionDifference> found;
  for (const auto* field : job_fields()) {
    if (spec_of(*field).on_resume() != on_resume) continue;
    const std::string then = value_text(before, field), now = value_text(after, field);
    if (then != now) found.push_back({flag_name(field->name()), then, now});
  }
  return found;
}

std::chrono::milliseconds patience_of(const JobOptions& job) {
  return std::chrono::milliseconds(static_cast<std::int64_t>(job.patience() * 1000));
}

void validate(const JobOptions& job, int world_size) {
  if (job.replay_ranks() > 0 && world_size > 1) {
    fail(ExitCode::kUsage, "--replay-ranks {} needs one process, but {} ranks were started",
         job.replay_ranks(), world_size);
  }
  const std::int64_t ranks = std::max<std::int64_t>(world_size, job.replay_ranks());
  const std::int64_t shards = job.shards() > 0 ? job.shards() : ranks;
  if (ranks > shards) {
    fail(ExitCode::kUsage,
         "{} ranks for {} shards: start with at most {} ranks, or a new job with --shards {}", ranks, shards,
         shards, ranks);
  }
  const std::int64_t batch = job.global_batch();
  if (batch % shards != 0) {
    const std::int64_t below = batch / shards * shards;
    const std::string allowed =
        below == 0 ? fmt::format("{}", shards) : fmt::format("{} or {}", below, below + shards);
    fail(ExitCode::kUsage, "--global-batch {} does not cut into {} equal shards: use --global-batch {}",
         batch, shards, allowed);
  }
  if (job.sync_batchnorm() && shards != world_size)
    fail(ExitCode::kUsage,
         "--sync-batchnorm: shards run side by side, so {} shards need {} ranks, and there {} {}; start as "
         "many, "
         "or on one machine trireme launch --backend local -n {}",
         shards, shards, world_size == 1 ? "is" : "are", world_size, shards);
  if (job.init().empty() && !job.init_map().empty())
    fail(ExitCode::kUsage, "--init-map '{}': there are no names to map without --init", job.init_map());
  if (job.schedule() == "onecycle" && job.warmup_steps() > 0)
    fail(
        ExitCode::kUsage,
        "--warmup-steps {}: --schedule onecycle rises by itself over 30 % of the run; leave the warm-up out, "
        "or use --schedule cosine",
        job.warmup_steps());
  if (job.checkpoint_every() > 0 && job.checkpoint_dir().empty() && job.out().empty())
    fail(ExitCode::kUsage,
         "--checkpoint-every {}: there is no folder for checkpoints; give --checkpoint-dir or --out",
         job.checkpoint_every());
  if (job.device() == "cuda") kernels_of({DeviceType::kCuda, 0});  // which says why there are none
  if (job.cuda_graph() && job.device() != "cuda")
    fail(ExitCode::kUsage,
         "--cuda-graph: there are no graphs on the CPU; add --device cuda, or --cuda-graph off");
  if (job.backend() == "nccl" && job.device() != "cuda")
    fail(ExitCode::kUsage,
         "--backend nccl: it moves memory of GPUs; add --device cuda, or use --backend auto");
}

}  // namespace trireme
