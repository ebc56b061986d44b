// Tests reading of text files with the variations that people and other systems make.
#include "core/base/text_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <thread>

#include "core/base/file_kind.h"
#include "tests/support/errors.h"
#include "tests/unit/core/metrics_scratch.h"

namespace trireme {
namespace {

using namespace std::string_literals;
using namespace std::chrono_literals;
using test::Scratch;
using test::write_text;  // not test::read_text, because these tests test trireme::read_text

std::string error_of(const std::filesystem::path& path, std::chrono::milliseconds patience = 100ms) {
  try {
    return "read: " + read_text(path, ExitCode::kData, patience);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kData);
    return error.what();
  }
}

TEST(ReadText, LeavesOutAByteOrderMark) {
  const Scratch scratch;
  write_text(scratch / "bom", "\xef\xbb\xbfmodel: 1\n");
  EXPECT_EQ(read_text(scratch / "bom"), "model: 1\n");
  write_text(scratch / "inside", "model:\xef\xbb\xbf 1");
  EXPECT_EQ(read_text(scratch / "inside"), "model:\xef\xbb\xbf 1");
  write_text(scratch / "empty", "");
  EXPECT_EQ(read_text(scratch / "empty"), "");
}

TEST(ReadText, RefusesWhatIsNoText) {
  const Scratch scratch;
  const auto refusal = [&](const std::string& bytes) {
    write_text(scratch / "file", bytes);
    return error_of(scratch / "file");
  };
  test::expect_holds(refusal("\x1f\x8b\x08\0abc"s), {"cannot read this file as text: it is a gzip file"});
  test::expect_holds(refusal("\xff\xfem\0o\0"s), {"it is UTF-16 text"});
  test::expect_holds(refusal("\0\0\xfe\xff\0\0\0m"s), {"it is UTF-32 text"});
  test::expect_holds(error_of(scratch / "none"), {"No such file"});
  test::expect_holds(error_of(scratch / "."), {"it is a folder"});
}

TEST(ReadText, WaitsForThePatienceAndNoLongerForAPipe) {
  const Scratch scratch;
  const std::string pipe = (scratch / "pipe").string();
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const auto begin = std::chrono::steady_clock::now();
  test::expect_holds(error_of(pipe, 200ms), {"nothing has come out of this pipe for 0.2 s"});
  const auto took = std::chrono::steady_clock::now() - begin;
  EXPECT_GE(took, 200ms);
  EXPECT_LT(took, 5s);
  // The reader waits for a writer that comes late and writes in pieces.
  std::thread writer([&] {
    std::this_thread::sleep_for(100ms);
    std::ofstream out(pipe);
    out << "steps: ";
    out.flush();
    std::this_thread::sleep_for(100ms);
    out << "3\n";
  });
  EXPECT_EQ(read_text(pipe, ExitCode::kUsage, 10s), "steps: 3\n");
  writer.join();
}

std::span<const std::uint8_t> bytes_of(const std::string& text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

std::string utf16(const std::string& latin, bool big) {
  std::string wide;
  for (const char c : latin) wide += big ? "\0"s + c : c + "\0"s;
  return wide;
}

TEST(FileKind, KnowsWideTextWithAndWithoutAMark) {
  const std::string latin = "the quick brown fox jumps over the lazy dog\n";
  EXPECT_EQ(wide_text(bytes_of(utf16(latin, false))), "UTF-16 text");
  EXPECT_EQ(wide_text(bytes_of(utf16(latin, true))), "UTF-16 text");
  EXPECT_EQ(wide_text(bytes_of("\xfe\xff\x04\x14"s)), "UTF-16 text");
  std::string little, big;
  for (const char c : latin) little += c + "\0\0\0"s, big += "\0\0\0"s + c;
  EXPECT_EQ(wide_text(bytes_of(little)), "UTF-32 text");
  EXPECT_EQ(wide_text(bytes_of(big)), "UTF-32 text");
  EXPECT_EQ(wide_text(bytes_of(std::string(4096, '\0'))), "");
  EXPECT_EQ(wide_text(bytes_of(latin)), "");
  EXPECT_EQ(wide_text(bytes_of("")), "");
  std::string random;
  for (unsigned i = 0, x = 1; i < 4096; ++i)
    random += static_cast<char>((x = x * 1664525 + 1013904223) >> 24);
  EXPECT_EQ(wide_text(bytes_of(random)), "") << "any bytes may be trained on";
  EXPECT_EQ(known_format(bytes_of(random)), "");
}

TEST(FileKind, KnowsPackedFilesByTheirFirstBytes) {
  const std::pair<std::string, std::string> known[] = {{"\x1f\x8b\x08\0"s, "a gzip file"},
                                                       {"PK\x03\x04", "a zip file"},
                                                       {"\x28\xb5\x2f\xfd", "a zstd file"},
                                                       {"\xfd"
                                                        "7zXZ\0"s,
                                                        "an xz file"},
                                                       {"BZh9", "a bzip2 file"},
                                                       {"\x93NUMPY", "a NumPy file"},
                                                       {"\x89PNG\r\n\x1a\n", "a PNG picture"},
                                                       {"\xff\xd8\xff\xe0", "a JPEG picture"},
                                                       {"\x7f"
                                                        "ELF",
                                                        "a program (ELF)"},
                                                       {"GGUF", "a GGUF file"},
                                                       {std::string(257, 'a') + "ustar", "a tar archive"},
                                                       {"\x80\x04\x95\x1f\0\0\0\0\0\0\0"s, "a Python pickle"},
                                                       {"\x80\x02}q\0X\1\0\0\0a"s, "a Python pickle"},
                                                       {"\x40\0\0\0\0\0\0\0{\"a\":"s, "a safetensors file"},
                                                       {"PAR1", "a Parquet file"}};
  for (const auto& [bytes, name] : known) {
    EXPECT_EQ(known_format(bytes_of(bytes)), name);
    EXPECT_EQ(known_format(bytes_of(bytes.substr(0, 2))), "") << "two bytes may be anything";
  }
}

}  // namespace
}  // namespace trireme
