// Tests the command line and the job file: what they accept, which takes precedence, and the one-line error
// for every mistake.
#include "distributed/train/options.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

namespace trireme {
namespace {

using Words = std::vector<std::string>;

JobOptions parse(const Words& words, const JobOptions& defaults = {}, const Words& unused = {}) {
  std::vector<const char*> argv = {"program"};
  for (const auto& word : words) argv.push_back(word.c_str());
  return parse_options(static_cast<int>(argv.size()), argv.data(),
                       {.about = {}, .defaults = defaults, .unused = unused});
}

/// Returns the message of the Error that `fn` throws, which must be one line and have this code.
template <class Fn>
std::string error_of(ExitCode code, Fn&& fn) {
  try {
    fn();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

std::string usage_error(const Words& words) {
  const std::string message = error_of(ExitCode::kUsage, [&] { parse(words); });
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  return message;
}

std::string validate_error(const Words& words, int world_size) {
  return error_of(ExitCode::kUsage, [&] { validate(parse(words), world_size); });
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// A job file that is removed at the end of the test.
class ConfigFile {
 public:
  explicit ConfigFile(const std::string& text)
      : path_(std::filesystem::temp_directory_path() / ("job." + std::to_string(getpid()) + ".textproto")) {
    std::ofstream(path_) << text;
  }
  ~ConfigFile() { std::filesystem::remove(path_); }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

TEST(Options, TakesEveryKindOfValue) {
  const JobOptions job = parse({"--steps", "50", "--lr=1e-3", "--model", "mlp", "--overlap", "off", "--quiet",
                                "--seed", "18446744073709551615", "--optimizer", "adamw", "--out", ""});
  EXPECT_EQ(job.steps(), 50);
  EXPECT_DOUBLE_EQ(job.lr(), 1e-3);
  EXPECT_EQ(job.model(), "mlp");
  EXPECT_FALSE(job.overlap());
  EXPECT_TRUE(job.quiet());
  EXPECT_EQ(job.seed(), 18446744073709551615u);
  EXPECT_EQ(job.optimizer(), "adamw");
  EXPECT_EQ(job.out(), "");
}

TEST(Options, SwitchesTakeOnOffOrNothing) {
  EXPECT_TRUE(parse({"--overlap", "on"}).overlap());
  EXPECT_TRUE(parse({"--augment", "--steps", "3"}).augment());
  EXPECT_FALSE(parse({"--augment=off"}).augment());
  EXPECT_FALSE(parse({}).quiet());
}

TEST(Options, DefaultsAreInTheResult) {
  JobOptions defaults;
  defaults.set_lr(0.25);
  const JobOptions job = parse({}, defaults);
  EXPECT_TRUE(job.has_lr() && job.has_bucket_mb() && job.has_optimizer());
  EXPECT_DOUBLE_EQ(job.lr(), 0.25);
  EXPECT_EQ(job.global_batch(), 128);
  EXPECT_FALSE(job.has_steps() || job.has_epochs());
}

TEST(Options, FlagWinsOverFileOverProgram) {
  const ConfigFile file("lr: 0.5 global_batch: 64 overlap: false\n");
  JobOptions defaults;
  defaults.set_lr(0.25);
  defaults.set_momentum(0.5);
  const JobOptions job = parse({"--global-batch", "32", "--config", file.path()}, defaults);
  EXPECT_EQ(job.global_batch(), 32);
  EXPECT_DOUBLE_EQ(job.lr(), 0.5);
  EXPECT_DOUBLE_EQ(job.momentum(), 0.5);
  EXPECT_FALSE(job.overlap());
}

TEST(Options, LastOfARepeatedFlagWins) { EXPECT_EQ(parse({"--steps", "3", "--steps", "4"}).steps(), 4); }

TEST(Options, StepsAndEpochsAreOneChoice) {
  JobOptions defaults;
  defaults.set_epochs(9);
  EXPECT_EQ(parse({}, defaults).epochs(), 9);
  const JobOptions job = parse({"--steps", "3"}, defaults);
  EXPECT_EQ(job.steps(), 3);
  EXPECT_FALSE(job.has_epochs());
  const ConfigFile file("steps: 7");
  EXPECT_FALSE(parse({"--epochs", "2", "--config", file.path()}).has_steps());
  EXPECT_TRUE(contains(usage_error({"--steps", "3", "--epochs", "2"}), "give one of them"));
  const ConfigFile both("steps: 7 epochs: 8");
  EXPECT_TRUE(contains(usage_error({"--config", both.path()}), both.path()));
}

TEST(Options, PrintedConfigReadsBack) {
  const Words words = {"--steps", "5", "--lr", "0.1234567890123", "--data", "idx:/a \"b\"", "--augment"};
  Words printing = words;
  printing.push_back("--print-config");
  const std::string text = error_of(ExitCode::kDone, [&] { parse(printing); });
  EXPECT_TRUE(contains(text, "bucket_mb: 0")) << text;
  const ConfigFile file(text);
  JobOptions other;
  other.set_epochs(4);
  other.set_lr(9);
  EXPECT_EQ(to_text(parse({"--config", file.path()}, other)), to_text(parse(words)));
}

TEST(Options, HelpNamesEveryFlagOnceWithDocAndDefault) {
  JobOptions defaults;
  defaults.set_lr(0.625);
  const std::string text = error_of(ExitCode::kDone, [&] { parse({"--help"}, defaults); });
  const auto& job = *JobOptions::descriptor();
  for (int i = 0; i < job.field_count(); ++i) {
    std::string flag = "  --" + job.field(i)->name() + " ";
    std::replace(flag.begin(), flag.end(), '_', '-');
    const std::size_t at = text.find(flag);
    ASSERT_NE(at, std::string::npos) << flag;
    EXPECT_EQ(text.find(flag, at + 1), std::string::npos) << flag;
    const std::string& doc = job.field(i)->options().GetExtension(FlagSpec::flag).doc();
    EXPECT_FALSE(doc.empty()) << flag;
    EXPECT_TRUE(contains(text, doc)) << flag;
  }
  EXPECT_TRUE(contains(text, "(default 0.625)"));
  EXPECT_TRUE(contains(text, "sgd|adamw"));
}

TEST(Options, HelpWrapsAtTheWidthOfTheTerminal) {
  std::string words;
  for (const int width : {50, 80, 120}) {
    setenv("COLUMNS", std::to_string(width).c_str(), 1);
    const std::string help = error_of(ExitCode::kDone, [&] { parse({"--help"}); });
    unsetenv("COLUMNS");
    std::istringstream lines(help);
    for (std::string line; std::getline(lines, line);)
      EXPECT_LE(line.size(), static_cast<std::size_t>(width)) << line;
    // Only the line breaks depend on the width.
    std::istringstream all(help);
    std::string flat;
    for (std::string word; all >> word;) flat += word + " ";
    if (words.empty()) words = flat;
    EXPECT_EQ(flat, words) << width;
  }
}

TEST(Options, AProgramsOwnWarmUpGoesWithoutAOneCycleSchedule) {
  JobOptions defaults;
  defaults.set_warmup_steps(20);
  EXPECT_EQ(parse({}, defaults).warmup_steps(), 20);
  EXPECT_EQ(parse({"--schedule", "onecycle"}, defaults).warmup_steps(), 0);
  validate(parse({"--schedule", "onecycle"}, defaults), 1);
  EXPECT_EQ(
      validate_error({"--schedule", "onecycle", "--warmup-steps", "4"}, 1),
      "--warmup-steps 4: --schedule onecycle rises by itself over 30 % of the run; leave the warm-up out, or "
      "use --schedule cosine");
  const ConfigFile file("schedule: \"onecycle\"\nwarmup_steps: 4\n");
  EXPECT_EQ(parse({"--config", file.path()}, defaults).warmup_steps(), 4) << "a file asks for it, too";
}

TEST(Options, AJobFileMayBeginWithAByteOrderMark) {
  const ConfigFile file("\xef\xbb\xbfsteps: 7\r\nseed: 3\r\n\r\n");
  EXPECT_EQ(parse({"--config", file.path()}).steps(), 7);
  EXPECT_EQ(parse({"--config", file.path()}).seed(), 3u);
}

TEST(Options, AJobFileThatIsAPipeIsWaitedForWithThePatienceGiven) {
  const std::string pipe = testing::TempDir() + "/job_pipe";
  unlink(pipe.c_str());
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_TRUE(contains(usage_error({"--config", pipe, "--patience", "0.2"}),
                       "nothing has come out of this pipe for 0.2 s"));
}

TEST(OptionsErrors, NamesOurFlagForThoseOfOtherPrograms) {
  EXPECT_EQ(usage_error({"--batch-size", "3"}),
            "unknown flag --batch-size: it is called --global-batch here, and counts the samples of all "
            "ranks together");
  EXPECT_EQ(usage_error({"--batch_size=3"}),
            "unknown flag --batch_size: it is called --global-batch here, and counts the samples of all "
            "ranks together");
  EXPECT_EQ(usage_error({"--learning-rate", "3"}), "unknown flag --learning-rate: it is called --lr here");
  EXPECT_EQ(usage_error({"--workers", "3"}), "unknown flag --workers: it is called --loader-workers here");
}

TEST(OptionsErrors, UnknownFlagSuggestsTheNearest) {
  EXPECT_EQ(usage_error({"--globel-batch", "3"}),
            "unknown flag --globel-batch: did you mean --global-batch?");
  EXPECT_TRUE(contains(usage_error({"--global_batch=3"}), "--global-batch"));
  EXPECT_TRUE(contains(usage_error({"--confg", "x"}), "--config"));
  EXPECT_EQ(usage_error({"--quantum-mode", "1"}), "unknown flag --quantum-mode: --help lists them all");
  EXPECT_TRUE(contains(usage_error({"-q"}), "unknown flag -q"));
  EXPECT_TRUE(contains(usage_error({"--steps", "3", "extra"}), "unexpected argument 'extra'"));
  EXPECT_TRUE(contains(usage_error({"--quiet", "yes"}), "on or off"));
}

TEST(Options, RefusesFlagsThatHaveNoEffectBesideTheOthers) {
  EXPECT_EQ(
      usage_error({"--momentum", "0.5", "--optimizer", "adamw"}),
      "--momentum 0.5: has no effect with --optimizer adamw; leave it out, or use --optimizer sgd or lars");
  EXPECT_EQ(
      usage_error({"--momentum=0.9", "--optimizer", "lamb"}),
      "--momentum 0.9: has no effect with --optimizer lamb; leave it out, or use --optimizer sgd or lars");
  EXPECT_EQ(
      usage_error({"--powersgd-rank", "4"}),
      "--powersgd-rank 4: has no effect with --comm-hook none; leave it out, or use --comm-hook powersgd");
  EXPECT_EQ(
      usage_error({"--comm-hook", "fp16", "--powersgd-rank", "2"}),
      "--powersgd-rank 2: has no effect with --comm-hook fp16; leave it out, or use --comm-hook powersgd");
  EXPECT_EQ(usage_error({"--share-gpu"}),
            "--share-gpu on: has no effect with --device cpu; leave it out, or use --device cuda");
  EXPECT_EQ(usage_error({"--keep-checkpoints", "3"}),
            "--keep-checkpoints 3: has no effect without a folder for checkpoints; leave it out, or give "
            "--checkpoint-dir or --out");
  EXPECT_EQ(usage_error({"--replay-from", "4", "--resume", "never", "--checkpoint-dir", "c"}),
            "--resume never: has no effect with --replay-from 4, which names the checkpoint; leave it out, "
            "or leave "
            "--replay-from out");
}

TEST(Options, AcceptsFlagsThatHaveAnEffectOrAreOff) {
  EXPECT_EQ(parse({"--momentum", "0.5"}).momentum(), 0.5);
  EXPECT_EQ(parse({"--momentum", "0.5", "--optimizer", "lars"}).momentum(), 0.5);
  EXPECT_EQ(parse({"--powersgd-rank", "4", "--comm-hook", "powersgd"}).powersgd_rank(), 4);
  EXPECT_EQ(parse({"--keep-checkpoints", "3", "--out", "o"}).keep_checkpoints(), 3);
  EXPECT_EQ(parse({"--momentum", "0", "--optimizer", "adamw"}).momentum(), 0);
  EXPECT_FALSE(parse({"--share-gpu", "off"}).share_gpu());
  EXPECT_EQ(parse({"--resume", "auto", "--replay-from", "4"}).resume(), "auto");
}

TEST(Options, TellsWhichFieldsOfAJobFileHaveNoEffect) {
  std::vector<std::string> notes;
  const auto parse_file = [&](const std::string& text, const Words& more = {}) {
    const ConfigFile file(text);
    notes.clear();
    Words words = {"program", "--config", file.path()};
    words.insert(words.end(), more.begin(), more.end());
    std::vector<const char*> argv;
    for (const auto& word : words) argv.push_back(word.c_str());
    parse_options(static_cast<int>(argv.size()), argv.data(), {}, &notes);
    return file.path();
  };
  const std::string path = parse_file("momentum: 0.5 powersgd_rank: 4", {"--optimizer", "adamw"});
  EXPECT_EQ(notes,
            (Words{path + ": momentum 0.5: has no effect with --optimizer adamw; leave it out, or use "
                          "--optimizer sgd or lars",
                   path + ": powersgd_rank 4: has no effect with --comm-hook none; leave it out, or use "
                          "--comm-hook powersgd"}));
  parse_file("momentum: 0.5");
  EXPECT_EQ(notes, Words{});
  parse_file(to_text(parse({"--optimizer", "adamw"})));  // the output of --print-config contains all defaults
  EXPECT_EQ(notes, Words{});
}

TEST(Options, RefusesASecondJobFile) {
  const ConfigFile file("lr: 0.5");
  EXPECT_EQ(
      usage_error({"--config", "none", "--config", file.path()}),
      "--config " + file.path() + ": --config is given 2 times, and a job has one file; join the files");
}

TEST(OptionsErrors, NumbersAreNumbersInRange) {
  EXPECT_EQ(usage_error({"--steps", "0"}), "--steps 0: must be at least 1");
  EXPECT_EQ(usage_error({"--steps", "-3"}), "--steps -3: must be at least 1");
  EXPECT_EQ(usage_error({"--global-batch=-1"}), "--global-batch -1: must be at least 1");
  EXPECT_EQ(usage_error({"--keep-checkpoints", "1"}), "--keep-checkpoints 1: must be at least 2");
  EXPECT_EQ(usage_error({"--label-smoothing", "1.5"}), "--label-smoothing 1.5: must be at most 1");
  EXPECT_EQ(usage_error({"--steps", "12abc"}), "--steps '12abc': must be a whole number");
  EXPECT_EQ(usage_error({"--steps", "1.5"}), "--steps '1.5': must be a whole number");
  EXPECT_EQ(usage_error({"--lr", "0.1x"}), "--lr '0.1x': must be a number");
  EXPECT_TRUE(contains(usage_error({"--lr", "nan"}), "must be finite"));
  EXPECT_TRUE(contains(usage_error({"--lr", "inf"}), "must be finite"));
  EXPECT_TRUE(contains(usage_error({"--seed", "-1"}), "not negative"));
  EXPECT_TRUE(contains(usage_error({"--steps", "99999999999999999999"}), "too large"));
  EXPECT_TRUE(contains(usage_error({"--steps", "-9223372036854775808"}), "--steps -9223372036854775808: "));
  EXPECT_TRUE(contains(usage_error({"--steps", ""}), "--steps"));
  EXPECT_TRUE(contains(usage_error({"--steps="}), "--steps"));
}

TEST(OptionsErrors, EnumsListWhatIsAllowed) {
  EXPECT_EQ(usage_error({"--optimizer", "adam"}), "--optimizer 'adam': must be sgd, adamw, lars, lamb");
  EXPECT_TRUE(contains(usage_error({"--dtype", "float16"}), "float32"));
}

TEST(OptionsErrors, MissingValueNamesTheFlag) {
  EXPECT_EQ(usage_error({"--steps"}), "--steps needs a value");
  EXPECT_EQ(usage_error({"--config"}), "--config needs a value");
  EXPECT_EQ(usage_error({"--lr", "--steps", "3"}), "--lr needs a value, but --steps follows");
  EXPECT_EQ(usage_error({"--out", "--quiet"}), "--out needs a value, but --quiet follows");
}

TEST(OptionsErrors, ConfigFileNamesFileAndLine) {
  EXPECT_TRUE(contains(usage_error({"--config", "/nowhere/job.textproto"}), "/nowhere/job.textproto"));
  EXPECT_TRUE(contains(usage_error({"--config", "/"}), "cannot read"));
  const ConfigFile unknown("steps: 3\nstepz: 4\n");
  EXPECT_TRUE(contains(usage_error({"--config", unknown.path()}), unknown.path() + ":2: "));
}

TEST(OptionsErrors, ConfigFileKeepsToTheSameBounds) {
  const ConfigFile range("steps: 3\n\nglobal_batch: 0\n");
  EXPECT_EQ(usage_error({"--config", range.path()}), range.path() + ":3: global_batch 0: must be at least 1");
  const ConfigFile word("optimizer: 'sdg'");
  EXPECT_TRUE(contains(usage_error({"--config", word.path()}),
                       ":1: optimizer 'sdg': must be sgd, adamw, lars, lamb"));
}

TEST(OptionsErrors, EmptyConfigFileIsAJobWithoutAWish) {
  const ConfigFile empty("");
  EXPECT_EQ(to_text(parse({"--config", empty.path()})), to_text(parse({})));
}

TEST(OptionsValidate, BatchMustCutIntoEqualShards) {
  EXPECT_EQ(validate_error({"--global-batch", "7", "--shards", "4"}, 2),
            "--global-batch 7 does not cut into 4 equal shards: use --global-batch 4 or 8");
  EXPECT_TRUE(contains(validate_error({"--global-batch", "3", "--shards", "8"}, 2), "use --global-batch 8"));
  // By default there is one shard for each rank.
  EXPECT_TRUE(contains(validate_error({"--global-batch", "8"}, 3), "3 equal shards"));
  EXPECT_NO_THROW(validate(parse({"--global-batch", "8", "--shards", "8"}), 5));
}

TEST(OptionsValidate, EveryRankNeedsAShard) {
  const std::string message = validate_error({"--shards", "4", "--global-batch", "8"}, 6);
  EXPECT_TRUE(contains(message, "--shards 6")) << message;
  EXPECT_NO_THROW(validate(parse({"--shards", "4", "--global-batch", "8"}), 4));
}

TEST(OptionsValidate, ReplayIsOneProcess) {
  EXPECT_TRUE(contains(validate_error({"--replay-ranks", "4"}, 2), "one process"));
  EXPECT_TRUE(contains(validate_error({"--replay-ranks", "4", "--shards", "2"}, 1), "--shards 4"));
  EXPECT_TRUE(contains(validate_error({"--replay-ranks", "3"}, 1), "3 equal shards"));
  EXPECT_NO_THROW(validate(parse({"--replay-ranks", "4"}), 1));
}

TEST(OptionsValidate, DeviceAndBackendMustBeAtHand) {
  EXPECT_TRUE(contains(validate_error({"--device", "cuda"}, 1), "--device cpu"));
  EXPECT_TRUE(contains(validate_error({"--backend", "nccl"}, 1), "--backend auto"));
  EXPECT_TRUE(contains(validate_error({"--cuda-graph"}, 1), "--cuda-graph: there are no graphs on the CPU"));
}

TEST(Options, FlagsWithoutUseAreRefused) {
  const Words unused = {"--clip-norm", "--model"};
  const auto error = [&](const Words& words) {
    return error_of(ExitCode::kUsage, [&] { parse(words, {}, unused); });
  };
  EXPECT_EQ(error({"--clip-norm", "1"}), "--clip-norm: this program has no use for it");
  EXPECT_EQ(error({"--model=mlp"}), "--model: this program has no use for it");
  EXPECT_EQ(parse({"--lr", "1"}, {}, unused).lr(), 1);
  const std::string help = error_of(ExitCode::kDone, [&] { parse({"--help"}, {}, unused); });
  EXPECT_EQ(help.find("--clip-norm"), std::string::npos);
  EXPECT_NE(help.find("--lr"), std::string::npos);

  const std::string path = testing::TempDir() + "/unused.textproto";
  std::ofstream(path) << "lr: 1\nclip_norm: 1\n";
  EXPECT_EQ(error({"--config", path}), path + ":2: clip_norm: this program has no use for it");
  std::ofstream(path) << to_text(parse({"--lr", "0.5"}, {}, unused));  // the output of --print-config
  EXPECT_EQ(parse({"--config", path}, {}, unused).lr(), 0.5);
  EXPECT_NE(error_of(ExitCode::kInternal, [&] { parse({}, {}, {"--clipnorm"}); }).find("--clipnorm"),
            std::string::npos);
}

TEST(Options, CheckpointsNeedAFolder) {
  EXPECT_NE(validate_error({"--checkpoint-every", "5"}, 1).find("--checkpoint-every 5: there is no folder"),
            std::string::npos);
  validate(parse({"--checkpoint-every", "5", "--out", "a"}), 1);
  validate(parse({"--checkpoint-every", "5", "--checkpoint-dir", "a"}), 1);
}

TEST(Options, DifferencesAreThoseThatMatterToAResume) {
  const JobOptions before = parse({"--lr", "0.5", "--bucket-mb", "3", "--seed", "4"});
  const JobOptions after = parse({"--lr", "0.25", "--dtype", "bfloat16", "--steps", "9"});
  const auto flags = [&](FlagSpec::OnResume on_resume) {
    Words found;
    for (const OptionDifference& d : differences(before, after, on_resume))
      found.push_back(d.flag + " " + d.before + " " + d.after);
    return found;
  };
  EXPECT_EQ(flags(FlagSpec::MUST_MATCH), (Words{"--seed 4 0", "--dtype float32 bfloat16"}));
  EXPECT_EQ(flags(FlagSpec::IS_SAID), (Words{"--lr 0.5 0.25"}));
  EXPECT_EQ(to_text(from_text(to_text(before))), to_text(before));
  EXPECT_EQ(from_text("lr: 0.5\nof_another_version: 3\n").lr(), 0.5);
}

}  // namespace
}  // namespace trireme
