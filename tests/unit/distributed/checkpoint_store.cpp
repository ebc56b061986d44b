#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>

#include "core/interchange/safetensors.h"
#include "distributed/checkpoint/faulty_file_system.h"
#include "distributed/checkpoint/manifest.h"
#include "distributed/checkpoint/memory_file_system.h"
#include "distributed/checkpoint/store.h"
#include "distributed/comm/local.h"
#include "tests/support/checkpoint.h"
#include "tests/support/watchdog.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
using test::code_thrown_by;
using test::job_at;
using test::run_alone;
using test::small_model;
using test::TensorSet;

const fs::path kDirectory = "/jobs/a";
const fs::path kStep5 = kDirectory / "step-00000005";

void save(std::shared_ptr<FileSystem> files, const fs::path& directory, int ranks, std::int64_t step,
          const TensorSet& model, int keep = 2) {
  run_local_ranks(ranks, std::chrono::seconds(60), [&](Communicator& comm) {
    CheckpointStore(files, directory).save(comm, job_at(step), model.slots, keep);
  });
}

std::vector<std::int64_t> steps(const CheckpointStore& store) {
  std::vector<std::int64_t> all;
  for (const Checkpoint& found : store.list()) all.push_back(found.step);
  return all;
}

TEST(CheckpointStore, AnyWorldWritesAndAnyWorldReads) {
  const test::Watchdog watchdog("worlds", std::chrono::seconds(100));
  const TensorSet model = small_model(3);
  for (const int writers : {1, 2, 3, 4, 8, 50}) {
    const auto files = std::make_shared<MemoryFileSystem>();
    save(files, kDirectory, writers, 5, model);
    EXPECT_EQ(files->list(kStep5).size(), static_cast<std::size_t>(writers) + 1);
    EXPECT_EQ(CheckpointStore(files, kDirectory).verify(kStep5), std::vector<std::string>{});
    for (const int readers : {1, 2, 4})
      run_local_ranks(readers, std::chrono::seconds(60), [&](Communicator&) {
        const CheckpointStore store(files, kDirectory);
        TensorSet loaded = model.empty_copy();
        EXPECT_EQ(store.load(kStep5, loaded.slots), job_at(5));
        EXPECT_TRUE(loaded.holds_the_same(model)) << writers << " to " << readers;
      });
  }
}

TEST(CheckpointStore, TellsWhatItHolds) {
  const auto files = std::make_shared<MemoryFileSystem>();
  const TensorSet model = small_model(3);
  save(files, kDirectory, 2, 5, model);
  const CheckpointStore store(files, kDirectory);
  EXPECT_EQ(store.read_state(kStep5), job_at(5));
  const auto tensors = store.tensors(kStep5);
  ASSERT_EQ(tensors.size(), model.slots.size());
  EXPECT_EQ(tensors.front().name, "adam.moment");
  EXPECT_EQ(tensors.front().dtype, DType::kFloat64);
  EXPECT_EQ(tensors.front().shape, (std::vector<std::int64_t>{3, 2, 2}));
  EXPECT_EQ(tensors.front().bytes, 96u);
}

TEST(CheckpointStore, ListsOnlyWhatIsCommitted) {
  const auto files = std::make_shared<MemoryFileSystem>();
  EXPECT_TRUE(CheckpointStore(files, kDirectory).list().empty());
  save(files, kDirectory, 1, 12, small_model(1));
  save(files, kDirectory, 1, 123456789, small_model(1), 9);
  for (const char* name : {"step-12", "step-0000000012", "step-00000013", "step--0000001", "step-00000014x",
                           "other", "step-00000015.tmp.ab.cd"})
    files->make_dir(kDirectory / name);
  files->create(kDirectory / "step-00000016");
  files->make_link(kDirectory / "step-00000017");
  files->create(kDirectory / "step-00000015.tmp.ab.cd" / kManifestName);
  EXPECT_EQ(steps(CheckpointStore(files, "/jobs/x/../a/")), (std::vector<std::int64_t>{12, 123456789}));
}

TEST(CheckpointStore, KeepsTheNewestAndWhatIsNewerThanTheOneSaved) {
  const auto files = std::make_shared<MemoryFileSystem>();
  const CheckpointStore store(files, kDirectory);
  for (const std::int64_t step : {10, 20, 30, 40}) save(files, kDirectory, 2, step, small_model(1), 3);
  EXPECT_EQ(steps(store), (std::vector<std::int64_t>{20, 30, 40}));
  save(files, kDirectory, 1, 35, small_model(2), 2);
  EXPECT_EQ(steps(store), (std::vector<std::int64_t>{30, 35, 40}));
  EXPECT_EQ(code_thrown_by([&] { save(files, kDirectory, 1, 50, small_model(1), 1); }), ExitCode::kInternal);
}

TEST(CheckpointStore, SavingTheSameAgainWritesNothing) {
  const test::Watchdog watchdog("save again", std::chrono::seconds(60));
  const auto disk = std::make_shared<MemoryFileSystem>();
  const auto files = std::make_shared<FaultyFileSystem>(disk);
  save(files, kDirectory, 3, 5, small_model(1));
  files->fail_at(0, FaultyFileSystem::Fault::kIo);
  save(files, kDirectory, 2, 5, small_model(1));  // repeats the save at another world size
  run_local_ranks(2, std::chrono::seconds(30), [&](Communicator& comm) {
    JobState elsewhere = job_at(5);
    elsewhere.link = "0.1 ms a sum";  // also changes what depends on machines
    elsewhere.engines = "matmul => id 66\n";
    TensorSet model = small_model(1);
    CheckpointStore(files, kDirectory).save(comm, elsewhere, model.slots, 2);
  });
  EXPECT_EQ(files->operations(), 0);

  files->fail_at(-1, FaultyFileSystem::Fault::kIo);
  TensorSet other = small_model(1);
  other.memory[0].back() ^= std::byte{1};
  save(files, kDirectory, 2, 5, other);
  EXPECT_GT(files->operations(), 0);
  TensorSet loaded = other.empty_copy();
  CheckpointStore(files, kDirectory).load(kStep5, loaded.slots);
  EXPECT_TRUE(loaded.holds_the_same(other));
  EXPECT_EQ(disk->list(kDirectory), std::vector<std::string>{"step-00000005"});
}

TEST(CheckpointStore, ADamagedStepIsReplaced) {
  const auto files = std::make_shared<MemoryFileSystem>();
  for (const char* name : {"shard-00001-of-00002.safetensors", kManifestName}) {
    save(files, kDirectory, 2, 5, small_model(1));
    files->damage(kStep5 / name, 300);
    save(files, kDirectory, 2, 5, small_model(1));
    EXPECT_EQ(CheckpointStore(files, kDirectory).verify(kStep5), std::vector<std::string>{});
  }
}

TEST(CheckpointStore, SomethingElseUnderTheNameIsRefused) {
  const auto files = std::make_shared<MemoryFileSystem>();
  files->make_dir("/jobs");
  files->make_dir(kDirectory);
  files->make_link(kStep5);
  std::string what;
  EXPECT_EQ(code_thrown_by([&] { save(files, kDirectory, 2, 5, small_model(1)); }, &what),
            ExitCode::kCheckpoint);
  EXPECT_NE(what.find("not a directory"), std::string::npos) << what;
  EXPECT_EQ(files->status(kStep5).kind, FileKind::kOther);
}

TEST(CheckpointStore, NonFiniteValuesAreNeverSaved) {
  const test::Watchdog watchdog("non-finite", std::chrono::seconds(60));
  const auto check = [](auto bad, const std::string& name, std::size_t element) {
    const auto files = std::make_shared<MemoryFileSystem>();
    TensorSet model = small_model(1);
    for (const auto& slot : model.slots)
      if (slot.name == name) std::memcpy(slot.data + element * sizeof bad, &bad, sizeof bad);
    for (const int ranks : {1, 3}) {
      std::string what;
      EXPECT_EQ(code_thrown_by([&] { save(files, kDirectory, ranks, 5, model); }, &what),
                ExitCode::kNonFinite);
      EXPECT_NE(what.find(fmt::format("'{}'", name)), std::string::npos) << what;
      EXPECT_NE(what.find(fmt::format("element {} is", element)), std::string::npos) << what;
      EXPECT_TRUE(CheckpointStore(files, kDirectory).list().empty());
    }
  };
  constexpr float kInf = std::numeric_limits<float>::infinity();
  check(kInf, "layer.weight", 34);
  check(-kInf, "layer.bias", 0);
  check(std::nanf(""), "layer.weight", 17);
  check(std::nan(""), "adam.moment", 11);
  check(static_cast<double>(-kInf), "adam.moment", 5);
}

TEST(CheckpointStore, RanksThatDisagreeAreTold) {
  const test::Watchdog watchdog("disagreement", std::chrono::seconds(60));
  const auto files = std::make_shared<MemoryFileSystem>();
  const TensorSet model = small_model(1);
  TensorSet other = small_model(1);
  other.add("more", DType::kFloat32, {1}, 1);
  std::string what;
  EXPECT_EQ(code_thrown_by(
                [&] {
                  run_local_ranks(3, std::chrono::seconds(30), [&](Communicator& comm) {
                    const TensorSet& mine = comm.rank() == 2 ? other : model;
                    CheckpointStore(files, kDirectory).save(comm, job_at(5), mine.slots, 2);
                  });
                },
                &what),
            ExitCode::kInternal);
  EXPECT_NE(what.find("rank 2 saves other tensors"), std::string::npos) << what;
  EXPECT_TRUE(files->list(kDirectory).empty());
}

TEST(CheckpointStore, BadSlotsAreRefused) {
  const auto files = std::make_shared<MemoryFileSystem>();
  const auto refused = [&](TensorSlot slot) {
    TensorSet model = small_model(1);
    slot.data = model.memory[0].data();
    model.slots.push_back(slot);
    return code_thrown_by([&] { save(files, kDirectory, 1, 5, model); }) == ExitCode::kInternal;
  };
  EXPECT_TRUE(refused({"a#b", DType::kUInt8, {1}, nullptr, 1}));
  EXPECT_TRUE(refused({"", DType::kUInt8, {1}, nullptr, 1}));
  EXPECT_TRUE(refused({"__metadata__", DType::kUInt8, {1}, nullptr, 1}));
  EXPECT_TRUE(refused({"mask", DType::kUInt8, {1}, nullptr, 1}));
  EXPECT_TRUE(refused({"a", DType::kUInt8, {1}, nullptr, 2}));
  EXPECT_TRUE(refused({"a", DType::kUInt8, {-1}, nullptr, 1}));
  TensorSet unnamed = small_model(1);
  unnamed.add("\xFF\xFE", DType::kUInt8, {1}, 0);
  EXPECT_NE(code_thrown_by([&] { save(files, kDirectory, 1, 5, unnamed); }), ExitCode::kDone);
  EXPECT_TRUE(CheckpointStore(files, kDirectory).list().empty());
}

TEST(CheckpointStore, LoadNamesTheFirstMismatch) {
  const auto files = std::make_shared<MemoryFileSystem>();
  const TensorSet model = small_model(1);
  save(files, kDirectory, 2, 5, model);
  const CheckpointStore store(files, kDirectory);
  const auto error_of = [&](const std::function<void(TensorSet&)>& change) {
    TensorSet wanted = model.empty_copy();
    change(wanted);
    std::string what;
    EXPECT_EQ(code_thrown_by([&] { store.load(kStep5, wanted.slots); }, &what), ExitCode::kCheckpoint);
    return what;
  };
  const auto contains = [](const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << text << "\n" << part;
  };
  contains(error_of([](TensorSet& set) {
             set.slots[0].shape = {7, 5};
           }),
           "tensor 'layer.weight' is float32 [5, 7], but the job needs float32 [7, 5]");
  contains(error_of([](TensorSet& set) { set.slots[3].dtype = DType::kFloat64; }),
           "tensor 'adam.steps' is int64 [], but the job needs float64 []");
  contains(error_of([](TensorSet& set) { set.slots.erase(set.slots.begin() + 4); }),
           "has tensor 'mask' bool [11]");
  contains(error_of([](TensorSet& set) { set.add("z", DType::kBool, {2}, 1); }), "no tensor 'z'");
}

/// Damages every byte of every file, one after another.
TEST(CheckpointStore, EveryDamagedByteIsFoundNamedAndRefused) {
  const auto files = std::make_shared<MemoryFileSystem>();
  const TensorSet model = small_model(1);
  save(files, kDirectory, 3, 5, model);
  const CheckpointStore store(files, kDirectory);
  TensorSet loaded = model.empty_copy();
  for (const std::string& name : files->list(kStep5)) {
    const std::uint64_t size = files->status(kStep5 / name).size;
    for (std::uint64_t at = 0; at < size; ++at) {
      files->damage(kStep5 / name, at, static_cast<int>(at % 8));
      const auto damage = store.verify(kStep5);
      ASSERT_EQ(damage.size(), 1u) << name << " " << at;
      EXPECT_NE(damage[0].find(name), std::string::npos) << damage[0];
      ASSERT_EQ(code_thrown_by([&] { store.load(kStep5, loaded.slots); }), ExitCode::kCheckpoint)
          << name << " " << at;
      files->damage(kStep5 / name, at, static_cast<int>(at % 8));
    }
  }
  EXPECT_EQ(store.verify(kStep5), std::vector<std::string>{});
}

TEST(CheckpointStore, DamageIsNamedByItsBlock) {
  const auto files = std::make_shared<MemoryFileSystem>();
  TensorSet model;
  model.add("big", DType::kFloat32, {5 << 19}, 1);  // 10 MiB
  save(files, kDirectory, 1, 5, model);
  const CheckpointStore store(files, kDirectory);
  const fs::path shard = kStep5 / "shard-00000-of-00001.safetensors";
  TensorSet loaded = model.empty_copy();
  store.load(kStep5, loaded.slots);
  EXPECT_TRUE(loaded.holds_the_same(model));
  for (const std::uint64_t at : {kBlockBytes - 1, kBlockBytes, 2 * kBlockBytes + 99}) {
    files->damage(shard, at);
    const auto damage = store.verify(kStep5);
    ASSERT_EQ(damage.size(), 1u);
    const std::string expected =
        fmt::format("'{}': damaged between offset {} and ", shard.string(), at / kBlockBytes * kBlockBytes);
    EXPECT_EQ(damage[0].substr(0, expected.size()), expected);
    std::string what;
    EXPECT_EQ(code_thrown_by([&] { store.load(kStep5, loaded.slots); }, &what), ExitCode::kCheckpoint);
    EXPECT_EQ(what.substr(0, expected.size()), expected);
    files->damage(shard, at);
  }
}

TEST(CheckpointStore, EveryTruncationAndEveryMissingFileIsFound) {
  const TensorSet model = small_model(1);
  TensorSet loaded = model.empty_copy();
  const auto files = std::make_shared<MemoryFileSystem>();
  save(files, kDirectory, 2, 5, model);
  for (const std::string& name : files->list(kStep5)) {
    std::uint64_t size = files->status(kStep5 / name).size;
    while (size-- > 0) {
      files->truncate(kStep5 / name, size);
      const CheckpointStore store(files, kDirectory);
      const auto damage = store.verify(kStep5);
      ASSERT_EQ(damage.size(), 1u) << name << " " << size;
      EXPECT_NE(damage[0].find(name), std::string::npos) << damage[0];
      ASSERT_EQ(code_thrown_by([&] { store.load(kStep5, loaded.slots); }), ExitCode::kCheckpoint);
    }
    files->remove(kStep5 / name);
    EXPECT_EQ(code_thrown_by([&] { CheckpointStore(files, kDirectory).load(kStep5, loaded.slots); }),
              ExitCode::kCheckpoint);
    save(files, kDirectory, 2, 5, model);  // replaces the damaged checkpoint
  }
}

TEST(CheckpointStore, AShardThatContradictsTheManifestIsFound) {
  const test::TemporaryDirectory temporary;
  const auto files = std::make_shared<RealFileSystem>();
  TensorSet model;
  model.add("aa", DType::kFloat32, {2}, 1);
  model.add("bb", DType::kFloat32, {2}, 2);
  save(files, temporary.path(), 1, 5, model);
  // Writes a manifest with a valid checksum for a shard file whose header exchanges the names of the tensors.
  const fs::path step = temporary.path() / "step-00000005", shard = step / "shard-00000-of-00001.safetensors";
  std::swap(model.slots[0].name, model.slots[1].name);
  model.slots[0].shape = {1, 2};
  run_alone([&](Communicator& comm) {
    CheckpointStore(files, temporary.path()).save(comm, job_at(6), model.slots, 2);
  });
  const auto read = [&](const fs::path& path) {
    std::string bytes(files->status(path).size, '\0');
    files->read(path, 0, std::as_writable_bytes(std::span(bytes)));
    return bytes;
  };
  const fs::path other = temporary.path() / "step-00000006";
  Manifest lying = decode_manifest(read(other / kManifestName), "other");
  lying.tensors = decode_manifest(read(step / kManifestName), "own").tensors;
  for (auto& tensor : lying.tensors)  // shift offsets, because the new header has another length
    for (auto& piece : tensor.pieces) piece.offset += lying.files[0].size - files->status(shard).size;
  std::ofstream(other / kManifestName, std::ios::binary) << encode_manifest(lying);
  const auto damage = CheckpointStore(files, temporary.path()).verify(other);
  ASSERT_EQ(damage.size(), 1u);
  EXPECT_NE(damage[0].find("its header and the manifest differ"), std::string::npos) << damage[0];
}

TEST(CheckpointStore, CheckWritableMakesTheDirectoryAndLeavesItEmpty) {
  const auto files = std::make_shared<MemoryFileSystem>();
  CheckpointStore(files, "/a/b/c").check_writable();
  EXPECT_EQ(files->status("/a/b/c").kind, FileKind::kDirectory);
  EXPECT_TRUE(files->list("/a/b/c").empty());
}

TEST(CheckpointStore, CheckWritableSaysInOneLineWhatIsWrong) {
  const auto expect_refused = [](const std::shared_ptr<FileSystem>& files, const fs::path& directory,
                                 const std::string& reason) {
    std::string what;
    EXPECT_EQ(code_thrown_by([&] { CheckpointStore(files, directory).check_writable(); }, &what),
              ExitCode::kUsage);
    EXPECT_NE(what.find(reason), std::string::npos) << what;
    EXPECT_EQ(what.find('\n'), std::string::npos) << what;
  };
  const auto disk = std::make_shared<MemoryFileSystem>();
  disk->create("/file");
  expect_refused(disk, "/file", "Not a directory");
  expect_refused(disk, "/file/below", "Not a directory");
  const auto full = std::make_shared<FaultyFileSystem>(disk);
  CheckpointStore(full, "/full").check_writable();
  for (const long k : {0, 1, 2, 3, 4}) {
    full->fail_at(k, FaultyFileSystem::Fault::kNoSpace);
    expect_refused(full, "/full", "No space left on device");
  }
  const auto real = std::make_shared<RealFileSystem>();
  const test::TemporaryDirectory temporary;
  std::ofstream(temporary.path() / "file") << "x";
  expect_refused(real, temporary.path() / "file", "Not a directory");
  expect_refused(real, "/proc/trireme", "cannot make directory");
}

TEST(CheckpointStore, WorksOnTheRealDiskAndFollowsNoLink) {
  const test::TemporaryDirectory temporary;
  const auto files = std::make_shared<RealFileSystem>();
  const fs::path directory = temporary.path() / "deep" / "er";
  CheckpointStore store(files, directory);
  store.check_writable();
  const TensorSet model = small_model(1), other = small_model(2);
  save(files, directory, 3, 1, model);
  save(files, directory, 3, 2, model);
  save(files, directory, 2, 2, other);  // replaces a checkpoint by exchanging the names of directories
  save(files, directory, 2, 3, model);
  EXPECT_EQ(steps(store), (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(files->list(directory).size(), 2u);
  for (const Checkpoint& found : store.list()) {
    EXPECT_EQ(store.verify(found.path), std::vector<std::string>{});
    TensorSet loaded = model.empty_copy();
    store.load(found.path, loaded.slots);
    EXPECT_TRUE(loaded.holds_the_same(found.step == 2 ? other : model));
  }

  const fs::path shard = directory / "step-00000003" / "shard-00000-of-00002.safetensors";
  fs::rename(shard, directory / "elsewhere");
  fs::create_symlink(directory / "elsewhere", shard);
  ASSERT_EQ(store.verify(shard.parent_path()).size(), 1u);
  EXPECT_NE(store.verify(shard.parent_path())[0].find("not a regular file"), std::string::npos);

  fs::create_directory_symlink(directory / "step-00000002", directory / "step-00000009");
  EXPECT_EQ(steps(store), (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(code_thrown_by([&] { save(files, directory, 1, 9, model); }), ExitCode::kCheckpoint);
  EXPECT_EQ(store.verify(directory / "step-00000002"), std::vector<std::string>{});

  // The store's directory itself may be a symbolic link that the user made.
  fs::create_directory_symlink(directory, temporary.path() / "link");
  CheckpointStore(files, temporary.path() / "link").check_writable();
  save(files, temporary.path() / "link", 1, 4, model);
  EXPECT_EQ(steps(store).back(), 4);
}

}  // namespace
}  // namespace trireme
