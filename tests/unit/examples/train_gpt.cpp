// Tests the language model: GPT-2's size and names, causal attention, and windows that cover the text.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <set>

#include "core/autograd/autograd.h"
#include "examples/train_gpt/model.h"
#include "examples/train_gpt/text.h"
#include "tests/support/errors.h"

namespace trireme {
namespace {

TEST(Gpt, HasThePublishedSizeAndNames) {
  GptOptions options = parse_gpt("gpt2-124m");
  options.vocabulary = 50257;
  Gpt model(options);
  std::int64_t count = 0;
  std::set<std::string> names;
  for (const NamedTensor& p : model.parameters()) {
    count += p.tensor.numel();
    names.insert(p.name);
    if (p.name == "h.3.mlp.c_fc.weight") {
      EXPECT_EQ(p.tensor.shape(), (Shape{768, 3072}));
    }
  }
  EXPECT_EQ(count, 124'439'808);
  EXPECT_EQ(parameter_count(options), 124'439'808);
  EXPECT_EQ(names.size(), 148u);
  for (const char* name : {"wte.weight", "wpe.weight", "h.0.ln_1.weight", "h.11.attn.c_attn.bias",
                           "h.5.attn.c_proj.weight", "h.3.mlp.c_fc.weight", "h.7.ln_2.bias", "ln_f.weight"})
    EXPECT_TRUE(names.contains(name)) << name;
}

TEST(Gpt, SeesNothingOfWhatFollows) {
  const NoGrad off;
  Gpt model({.layers = 2, .width = 16, .heads = 2, .context = 8, .vocabulary = 11});
  std::vector<std::int64_t> tokens{3, 1, 4, 1, 5, 9, 2, 6};
  const auto before = model(Tensor::from(tokens, {1, 8})).to_vector<float>();
  tokens[5] = 10;
  const auto after = model(Tensor::from(tokens, {1, 8})).to_vector<float>();
  for (std::size_t i = 0; i < before.size(); ++i) {
    if (i < 5 * 11) {
      EXPECT_EQ(before[i], after[i]) << "place " << i / 11;
    }
  }
  EXPECT_NE(before[7 * 11], after[7 * 11]);
}

TEST(Gpt, WindowsPairTokensWithTheNextAndKeepTheTestApart) {
  const std::string path = testing::TempDir() + "/windows.bin";
  std::ofstream file(path, std::ios::binary);
  for (int i = 0; i < 1000; ++i) file << static_cast<char>(i % 256) << static_cast<char>(i / 256);
  file.close();
  const auto tokens = std::make_shared<const TokenFile>("tokens:" + path);
  ASSERT_EQ(tokens->size(), 1000);
  const Windows training(tokens, 7, Split::kTrain), test(tokens, 7, Split::kTest);
  std::vector<std::int64_t> x(7), y(7);
  std::byte* const to[] = {reinterpret_cast<std::byte*>(x.data()), reinterpret_cast<std::byte*>(y.data())};
  std::set<std::int64_t> starts;
  for (std::int64_t epoch = 0; epoch < 30; ++epoch)
    for (std::int64_t i = 0; i < training.size(); ++i) {
      training.read({i, epoch, 5}, to);
      if (i == 0) starts.insert(x[0]);
      ASSERT_LT(y[6], 900);
      for (std::size_t t = 0; t < 7; ++t) ASSERT_EQ(y[t], x[0] + static_cast<std::int64_t>(t) + 1);
    }
  EXPECT_GT(starts.size(), 3u);
  for (std::int64_t i = 0; i < test.size(); ++i) {
    test.read({i, 0, 5}, to);
    EXPECT_EQ(x[0], 900 + 7 * i);
    EXPECT_EQ(y[6], x[0] + 7);
  }
  EXPECT_EQ(test.size(), 14);
}

/// Returns the error of TokenFile for a file with these bytes, or "" if it accepts them.
std::string refusal(const std::string& kind, const std::string& bytes) {
  const std::string path = testing::TempDir() + "/tokens.bin";
  std::ofstream(path, std::ios::binary) << bytes;
  try {
    TokenFile file(kind + ":" + path);
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kData);
    return error.what();
  }
}

/// Returns `count` numbers below `limit`, each in `width` bytes in little-endian order.
std::string numbers(int count, std::uint64_t limit, int width) {
  std::string bytes;
  std::uint64_t x = 12345;
  for (int i = 0; i < count; ++i) {
    x = x * 6364136223846793005u + 1442695040888963407u;
    for (int b = 0; b < width; ++b) bytes += static_cast<char>(b < 8 ? (x >> 33) % limit >> (8 * b) : 0);
  }
  return bytes;
}

TEST(TokenFile, RefusesWhatIsNoUint16) {
  using namespace std::string_literals;
  for (const std::uint32_t magic : {20240520u, 20240801u}) {
    const std::string header = std::string(reinterpret_cast<const char*>(&magic), 4) + "\1\0\0\0"s;
    test::expect_holds(refusal("tokens", header + std::string(1016, '\0') + numbers(5000, 50257, 2)),
                       {"llm.c's header of 1024 bytes", "tail -c +1025"});
  }
  test::expect_holds(refusal("tokens", numbers(5000, 50257, 4)), {"numbers of 32 or 64 bits", "uint16"});
  test::expect_holds(refusal("tokens", numbers(5000, 128256, 4)), {"numbers of 32 or 64 bits"});
  test::expect_holds(refusal("tokens", numbers(5000, 50257, 8)), {"numbers of 32 or 64 bits"});
  test::expect_holds(refusal("tokens", "\xff\xff\xff\xff"s + numbers(4999, 50257, 4)),
                     {"numbers of 32 or 64 bits"});
  test::expect_holds(refusal("tokens", std::string(20000, '\0') + numbers(15000, 50257, 4)),
                     {"numbers of 32 or 64 bits"});
  EXPECT_EQ(refusal("tokens", numbers(5000, 50257, 2) + std::string(80000, '\0') + "\7\0\0\0"s), "")
      << "zeros at the end do not make uint16 tokens wide numbers";
  std::string text;
  while (text.size() < 4000)
    text += "It was a bright cold day in April,\r\n\tand the clocks were striking thirteen.";
  test::expect_holds(refusal("tokens", text), {"is text", "--data text:FILE"});
  test::expect_holds(refusal("tokens", "\xe2\x80\x9cZ\xc3\xbcge\xe2\x80\x9d " + text), {"is text"});
  test::expect_holds(refusal("tokens", numbers(5000, 50257, 2) + "x"),
                     {"10001 bytes", "no whole number of tokens"});
  for (const std::string kind : {"text", "tokens"}) {
    test::expect_holds(refusal(kind, "\x1f\x8b\x08\0"s + numbers(100, 256, 1)), {"is a gzip file", "unpack"});
    test::expect_holds(refusal(kind, "\x93NUMPY\1\0"s + numbers(100, 256, 1)), {"is a NumPy file"});
  }
  EXPECT_EQ(refusal("tokens", numbers(5000, 50257, 2)), "");
  EXPECT_EQ(refusal("tokens", numbers(5000, 3, 2)), "") << "a vocabulary of three";
  EXPECT_EQ(refusal("tokens", numbers(5000, 256, 2)), "") << "bytes as tokens";
}

TEST(TokenFile, RefusesWideTextAndTakesAnyBytes) {
  std::string wide;
  for (const char c :
       std::string("It was a bright cold day in April, and the clocks were striking thirteen."))
    wide += c, wide += '\0';
  test::expect_holds(refusal("text", wide), {"is UTF-16 text", "convert it to UTF-8"});
  test::expect_holds(refusal("text", "\xff\xfe" + wide), {"is UTF-16 text"});
  EXPECT_EQ(refusal("text", numbers(9000, 256, 1)), "");
  EXPECT_EQ(refusal("text", "\xef\xbb\xbfIt was a bright cold day"), "") << "a mark of UTF-8 is text";
}

TEST(TokenFile, RefusesWhatIsNoRegularFile) {
  const std::string pipe = testing::TempDir() + "/pipe";
  unlink(pipe.c_str());
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  test::expect_holds(test::error_of([&] { TokenFile("text:" + pipe); }),
                     {pipe.c_str(), "is not a regular file"});
  test::expect_holds(test::error_of([&] { TokenFile("text:" + testing::TempDir()); }), {"is a folder"});
}

TEST(Gpt, AFileNeedsAWindowToTrainOnAndOneToTestWith) {
  const std::string path = testing::TempDir() + "/short.txt";
  for (const int size : {0, 1, 7, 8, 22}) {
    std::ofstream(path) << std::string(static_cast<std::size_t>(size), 'a');
    const auto text = std::make_shared<const TokenFile>("text:" + path);
    for (const Split split : {Split::kTrain, Split::kTest}) try {
        Windows(text, 7, split);
        FAIL() << size << " were accepted";
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::kData);
        EXPECT_EQ(std::string(error.what())
                      .find(fmt::format("{}: {} tokens are too few for windows of 7; use a "
                                        "file of at least 23 or",
                                        path, size)),
                  0u)
            << error.what();
      }
  }
  std::ofstream(path) << std::string(23, 'a');
  const auto text = std::make_shared<const TokenFile>("text:" + path);
  EXPECT_EQ(Windows(text, 7, Split::kTrain).size(), 1);
  EXPECT_EQ(Windows(text, 7, Split::kTest).size(), 1);
}

TEST(Gpt, ShowsWhatATerminalCanBear) {
  const auto of = [](const std::string& bytes) {
    std::vector<std::int64_t> tokens;
    for (const char c : bytes) tokens.push_back(static_cast<unsigned char>(c));
    return shown(tokens, true);
  };
  const std::string good = "a\tb\n\u00a0\u00fc\u20ac\U0001f600\U0010ffff";
  EXPECT_EQ(of(good), good);
  EXPECT_EQ(of("a\x1b[31m\x7f"), "a?[31m?");
  EXPECT_EQ(of("\xc3"), "?") << "ends early";
  EXPECT_EQ(of("\xe2\x82z"), "??z") << "no continuation";
  EXPECT_EQ(of("\x80\xbf"), "??") << "no beginning";
  EXPECT_EQ(of("\xc0\xaf|\xe0\x80\xaf|\xf0\x80\x80\xaf"), "??|???|????") << "longer than need be";
  EXPECT_EQ(of("\xed\xa0\x80|\xf4\x90\x80\x80|\xff"), "???|????|?") << "surrogate, too large";
  EXPECT_EQ(of("\xc2\x9b"), "??") << "a control character";
  EXPECT_EQ(shown({7, 50256}, false), "7 50256");
}

}  // namespace
}  // namespace trireme
