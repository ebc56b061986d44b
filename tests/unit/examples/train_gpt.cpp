// The language model: GPT-2's size and names, no look ahead, and windows that cover the text.
#include <gtest/gtest.h>

#include <fstream>
#include <set>

#include "core/autograd/autograd.h"
#include "examples/train_gpt/model.h"
#include "examples/train_gpt/text.h"

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
