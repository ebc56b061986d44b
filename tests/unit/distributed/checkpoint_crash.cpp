// Tests saving while the machine crashes, the disk is full or calls fail. After each of these, a reader finds
// the old or the new checkpoint, complete, and the next save works.
#include <gtest/gtest.h>

#include <chrono>
#include <optional>
#include <string>

#include "distributed/checkpoint/faulty_file_system.h"
#include "distributed/checkpoint/memory_file_system.h"
#include "distributed/checkpoint/store.h"
#include "distributed/comm/local.h"
#include "tests/support/checkpoint.h"
#include "tests/support/watchdog.h"

namespace trireme {
namespace {

using test::code_thrown_by;
using test::job_at;
using test::small_model;
using test::TensorSet;
using Crash = MemoryFileSystem::Crash;
using Fault = FaultyFileSystem::Fault;

const std::filesystem::path kDirectory = "/jobs/a";
constexpr int kKeep = 2;

TensorSet model_of_step(std::int64_t step) { return small_model(static_cast<std::uint64_t>(100 * step)); }

/// A store over a file system that can fail and crash, with steps 1 and 2 committed.
struct Scene {
  std::shared_ptr<MemoryFileSystem> disk = std::make_shared<MemoryFileSystem>();
  std::shared_ptr<FaultyFileSystem> files = std::make_shared<FaultyFileSystem>(disk);
  CheckpointStore store{files, kDirectory};

  Scene() {
    save(1);
    save(2);
  }
  void save(std::int64_t step) { save(step, model_of_step(step)); }
  void save(std::int64_t step, const TensorSet& model) {
    test::run_alone([&](Communicator& comm) { store.save(comm, job_at(step), model.slots, kKeep); });
  }
};

/// Checks that all listed checkpoints are intact and hold what was saved. Returns the newest step.
std::int64_t newest_of_sound(const std::shared_ptr<FileSystem>& files, const std::string& context,
                             const std::function<TensorSet(std::int64_t)>& model = model_of_step) {
  const CheckpointStore store(files, kDirectory);
  std::int64_t newest = -1;
  for (const Checkpoint& found : store.list()) {
    EXPECT_EQ(store.verify(found.path), std::vector<std::string>{}) << context;
    const TensorSet saved = model(found.step);
    TensorSet loaded = saved.empty_copy();
    EXPECT_EQ(store.load(found.path, loaded.slots), job_at(found.step)) << context;
    EXPECT_TRUE(loaded.holds_the_same(saved)) << context;
    newest = found.step;
  }
  return newest;
}

long operations_of_a_save() {
  Scene scene;
  scene.files->fail_at(-1, Fault::kIo);
  scene.save(3);
  return scene.files->operations();
}

void expect_clean_save_afterwards(const std::shared_ptr<FileSystem>& files, const std::string& context) {
  CheckpointStore store(files, kDirectory);
  const TensorSet model = model_of_step(4);
  test::run_alone([&](Communicator& comm) { store.save(comm, job_at(4), model.slots, kKeep); });
  EXPECT_EQ(newest_of_sound(files, context), 4) << context;
  for (const std::string& name : files->list(kDirectory))
    EXPECT_EQ(name.find(".tmp."), std::string::npos) << context << ": left over: " << name;
}

struct Ending {
  Crash kind;
  std::uint64_t seed;
};

std::vector<Ending> endings(std::uint64_t seeds) {
  std::vector<Ending> all = {{Crash::kForget, 0}, {Crash::kKeep, 0}};
  for (std::uint64_t seed = 1; seed <= seeds; ++seed) all.push_back({Crash::kAny, seed});
  return all;
}

TEST(CheckpointCrash, AtEveryOperationLeavesTheOldOrTheNewOne) {
  const test::Watchdog watchdog("crash sweep", std::chrono::seconds(200));
  const long operations = operations_of_a_save();
  ASSERT_GT(operations, 15);
  bool seen_old = false, seen_new = false;
  for (long k = 0; k <= operations; ++k)
    for (const Ending& ending : endings(40)) {
      const std::string context = fmt::format("crash at operation {}, kind {}, seed {}", k,
                                              static_cast<int>(ending.kind), ending.seed);
      Scene scene;
      scene.files->fail_at(k, Fault::kCrash);
      const ExitCode code = code_thrown_by([&] { scene.save(3); });
      EXPECT_EQ(code == ExitCode::kDone, k == operations) << context;
      scene.disk->crash(ending.kind, ending.seed);
      const std::int64_t newest = newest_of_sound(scene.disk, context);
      EXPECT_TRUE(newest == 2 || newest == 3) << context << ": newest is " << newest;
      if (code == ExitCode::kDone) {
        EXPECT_EQ(newest, 3) << context;
      }
      seen_old |= newest == 2;
      seen_new |= newest == 3;
      expect_clean_save_afterwards(scene.disk, context);
    }
  EXPECT_TRUE(seen_old && seen_new);
}

TEST(CheckpointCrash, WhileReplacingAStepLeavesOneOfTheTwo) {
  const test::Watchdog watchdog("replacement sweep", std::chrono::seconds(200));
  const TensorSet other = small_model(777);
  long operations = 0;
  {
    Scene scene;
    scene.files->fail_at(-1, Fault::kIo);
    scene.save(2, other);
    operations = scene.files->operations();
  }
  for (long k = 0; k <= operations; ++k)
    for (const Ending& ending : endings(40)) {
      const std::string context = fmt::format("crash at operation {}, kind {}, seed {}", k,
                                              static_cast<int>(ending.kind), ending.seed);
      Scene scene;
      scene.files->fail_at(k, Fault::kCrash);
      const ExitCode code = code_thrown_by([&] { scene.save(2, other); });
      scene.disk->crash(ending.kind, ending.seed);
      const CheckpointStore store(scene.disk, kDirectory);
      ASSERT_EQ(store.list().size(), 2u) << context;
      const auto path = store.list().back().path;
      EXPECT_EQ(store.verify(path), std::vector<std::string>{}) << context;
      TensorSet loaded = other.empty_copy();
      store.load(path, loaded.slots);
      EXPECT_TRUE(loaded.holds_the_same(other) || loaded.holds_the_same(model_of_step(2))) << context;
      if (code == ExitCode::kDone) {
        EXPECT_TRUE(loaded.holds_the_same(other)) << context;
      }
    }
}

TEST(CheckpointFault, AtEveryOperationIsReportedAndHarmlessEvenIfACrashFollows) {
  const test::Watchdog watchdog("fault sweep", std::chrono::seconds(200));
  const long operations = operations_of_a_save();
  std::vector<std::optional<Ending>> all = {std::nullopt};
  for (const Ending& ending : endings(8)) all.emplace_back(ending);
  for (const Fault fault : {Fault::kNoSpace, Fault::kIo, Fault::kIoAfter, Fault::kShortWrite})
    for (long k = 0; k < operations; ++k)
      for (const auto& ending : all) {
        const std::string context =
            fmt::format("fault {} at operation {}, crash {} seed {}", static_cast<int>(fault), k,
                        ending ? static_cast<int>(ending->kind) : -1, ending ? ending->seed : 0);
        Scene scene;
        scene.files->fail_at(k, fault);
        std::string what;
        const ExitCode code = code_thrown_by([&] { scene.save(3); }, &what);
        EXPECT_EQ(code, ExitCode::kCheckpoint) << context << what;
        EXPECT_EQ(what.find('\n'), std::string::npos) << what;
        if (ending) scene.disk->crash(ending->kind, ending->seed);
        const std::int64_t newest = newest_of_sound(scene.disk, context);
        EXPECT_TRUE(newest == 2 || newest == 3) << context << ": newest is " << newest;
        // If the error says that the new checkpoint is committed, it must be there.
        if (what.find("is saved") != std::string::npos) {
          EXPECT_EQ(newest, 3) << context;
        }
        expect_clean_save_afterwards(scene.disk, context);
      }
}

/// The first failure leaves a file whose name has not been synchronized to the disk. The next save must cope
/// with it.
TEST(CheckpointFault, ThenACrashInTheNextSaveIsHarmless) {
  const test::Watchdog watchdog("fault and crash", std::chrono::seconds(200));
  const long operations = operations_of_a_save();
  // The last operations commit the checkpoint and remove older ones.
  for (long k = operations - 7; k < operations; ++k)
    for (long crash_at = 0; crash_at < 8; ++crash_at)
      for (const Ending& ending : endings(20)) {
        Scene scene;
        scene.files->fail_at(k, Fault::kIo);
        EXPECT_EQ(code_thrown_by([&] { scene.save(3); }), ExitCode::kCheckpoint);
        scene.files->fail_at(crash_at, Fault::kCrash);
        EXPECT_EQ(code_thrown_by([&] { scene.save(4); }), ExitCode::kCheckpoint);
        scene.disk->crash(ending.kind, ending.seed);
        const std::string context =
            fmt::format("fault at {}, crash at {}, seed {}", k, crash_at, ending.seed);
        EXPECT_GE(newest_of_sound(scene.disk, context), 2) << context;
      }
}

TEST(CheckpointFault, AFailedOneLeavesNothingBehind) {
  const long operations = operations_of_a_save();
  int not_saved = 0;
  for (long k = 0; k < operations; ++k) {
    Scene scene;
    const auto before = scene.disk->list(kDirectory);
    scene.files->fail_at(k, Fault::kNoSpace);
    std::string what;
    EXPECT_EQ(code_thrown_by([&] { scene.save(3); }, &what), ExitCode::kCheckpoint);
    EXPECT_NE(what.find("No space left on device"), std::string::npos) << what;
    if (what.find("is saved") != std::string::npos) continue;  // failed while it removed an older checkpoint
    EXPECT_EQ(scene.disk->list(kDirectory), before) << k << what;
    ++not_saved;
  }
  EXPECT_GT(not_saved, 10);
}

TEST(CheckpointFault, ASilentlyDamagedWriteIsFoundBeforeAnOlderOneGoes) {
  const long operations = operations_of_a_save();
  int found = 0;
  for (long k = 0; k < operations; ++k) {
    Scene scene;
    scene.files->fail_at(k, Fault::kFlippedBit);
    std::string what;
    const ExitCode code = code_thrown_by([&] { scene.save(3); }, &what);
    if (code == ExitCode::kDone) continue;  // the operation was not an append
    ++found;
    EXPECT_EQ(code, ExitCode::kCheckpoint);
    const CheckpointStore store(scene.disk, kDirectory);
    ASSERT_EQ(store.list().size(), 2u) << what;
    EXPECT_EQ(store.list().front().step, 1);
    EXPECT_EQ(newest_of_sound(scene.disk, what), 2);
  }
  EXPECT_EQ(found, 2);  // appends of the shard file's only block and of the manifest
}

TEST(CheckpointFault, OfOneRankIsTheErrorOfAll) {
  const test::Watchdog watchdog("ranks with faults", std::chrono::seconds(200));
  constexpr int kRanks = 3;
  const TensorSet old_model = model_of_step(1), new_model = model_of_step(2);
  for (int bad = 0; bad < kRanks; ++bad)
    for (const Fault fault : {Fault::kNoSpace, Fault::kShortWrite, Fault::kFlippedBit})
      for (long k = 0; k < 5; ++k) {  // create, append, sync, close, sync of the directory
        const auto disk = std::make_shared<MemoryFileSystem>();
        std::vector<ExitCode> codes(kRanks, ExitCode::kDone);
        std::vector<std::string> texts(kRanks);
        run_local_ranks(kRanks, std::chrono::seconds(30), [&](Communicator& comm) {
          const auto files = std::make_shared<FaultyFileSystem>(disk);
          CheckpointStore store(files, kDirectory);
          store.save(comm, job_at(1), old_model.slots, kKeep);
          const auto rank = static_cast<std::size_t>(comm.rank());
          if (comm.rank() == bad) files->fail_at(k, fault);
          codes[rank] =
              code_thrown_by([&] { store.save(comm, job_at(2), new_model.slots, kKeep); }, &texts[rank]);
        });
        const std::string context =
            fmt::format("rank {} fault {} at {}: {}", bad, static_cast<int>(fault), k, texts[0]);
        const bool silent = fault == Fault::kFlippedBit;
        for (const ExitCode code : codes) EXPECT_EQ(code, codes[0]) << context;
        for (const std::string& text : texts) EXPECT_EQ(text, texts[0]) << context;
        if (!silent) {
          EXPECT_EQ(codes[0], ExitCode::kCheckpoint) << context;
          EXPECT_NE(texts[0].find(fmt::format("rank {}: ", bad)), std::string::npos) << texts[0];
        }
        EXPECT_EQ(newest_of_sound(disk, context), codes[0] == ExitCode::kDone ? 2 : 1) << context;
        if (codes[0] != ExitCode::kDone) {
          EXPECT_EQ(disk->list(kDirectory), std::vector<std::string>{"step-00000001"});
        }
      }
}

TEST(CheckpointFault, WhileRemovingWhatWasReplacedDoesNotUnsaveTheNewOne) {
  const TensorSet other = small_model(777);
  long operations = 0, not_saved = 0;
  {
    Scene scene;
    scene.files->fail_at(-1, Fault::kIo);
    scene.save(2, other);
    operations = scene.files->operations();
  }
  for (long k = 0; k < operations; ++k) {
    Scene scene;
    scene.files->fail_at(k, Fault::kIo);
    std::string what;
    const ExitCode code = code_thrown_by([&] { scene.save(2, other); }, &what);
    TensorSet loaded = other.empty_copy();
    scene.store.load(kDirectory / "step-00000002", loaded.slots);
    EXPECT_EQ(loaded.holds_the_same(other), code == ExitCode::kDone) << "fault at operation " << k << what;
    not_saved += code != ExitCode::kDone;
    scene.save(4);
    for (const std::string& name : scene.disk->list(kDirectory))
      EXPECT_EQ(name.find(".tmp."), std::string::npos) << "fault at operation " << k << " left " << name;
  }
  EXPECT_LT(not_saved, operations - 3) << "the removal of files was not reached";
}

TEST(CheckpointCrash, LeftoversOfOtherRunsStay) {
  Scene scene;
  scene.disk->make_dir(kDirectory / "step-00000009.tmp.0123456789abcdef.0000000000000000");
  scene.save(3);
  EXPECT_EQ(scene.disk->list(kDirectory),
            (std::vector<std::string>{"step-00000002", "step-00000003",
                                      "step-00000009.tmp.0123456789abcdef.0000000000000000"}));
}

TEST(CheckpointCrash, WithoutExchangeASoundStepIsKeptAndADamagedOneReplaced) {
  Scene scene;
  scene.files->forbid_exchange();
  std::string what;
  EXPECT_EQ(code_thrown_by([&] { scene.save(2, small_model(777)); }, &what), ExitCode::kCheckpoint);
  EXPECT_NE(what.find("cannot exchange"), std::string::npos) << what;
  EXPECT_EQ(newest_of_sound(scene.disk, what), 2);

  scene.disk->damage(kDirectory / "step-00000002" / "shard-00000-of-00001.safetensors", 700);
  EXPECT_FALSE(scene.store.verify(kDirectory / "step-00000002").empty());
  scene.save(2);
  EXPECT_EQ(newest_of_sound(scene.disk, "replaced"), 2);
}

}  // namespace
}  // namespace trireme
