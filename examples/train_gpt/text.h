// Text as windows of tokens.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/data/dataset.h"

namespace trireme {

/// A file of tokens, read where it is needed: of any size.
///
///     text:FILE        each byte is a token
///     tokens:FILE      little-endian uint16, of GPT-2's vocabulary
class TokenFile {
 public:
  /// Throws Error(kUsage) if `spec` cannot be understood, Error(kData) if the file cannot be read.
  explicit TokenFile(const std::string& spec);
  ~TokenFile();
  TokenFile(const TokenFile&) = delete;
  TokenFile& operator=(const TokenFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::int64_t size() const { return size_; }  ///< in tokens
  std::int64_t vocabulary() const { return width_ == 1 ? 256 : 50257; }
  bool is_text() const { return width_ == 1; }
  /// Tokens [first, first + to.size()); any thread.
  void read(std::int64_t first, std::span<std::int64_t> to) const;

 private:
  std::filesystem::path path_;
  std::int64_t width_ = 1;  ///< bytes per token
  std::int64_t size_ = 0;
  int file_ = -1;
};

/// Windows of `context` tokens, each with the tokens that follow them. The last tenth of the file is for
/// testing, but no more of it than about 100000 tokens; the rest is for training, cut elsewhere in each
/// epoch. Fields: tokens (context) int64, next tokens (context) int64.
class Windows final : public Dataset {
 public:
  /// Throws Error(kData) if the file is too short.
  Windows(std::shared_ptr<const TokenFile> file, std::int64_t context, Split split);
  std::int64_t size() const override { return size_; }
  std::vector<SampleField> fields() const override;
  void read(const SampleId& id, std::span<std::byte* const> to) const override;
  std::string_view unit() const override { return "windows"; }

 private:
  std::shared_ptr<const TokenFile> file_;
  std::int64_t context_, first_ = 0, size_ = 0;
  bool moves_;  ///< cut elsewhere in each epoch
};

/// Text that a terminal shows, '?' for what is no UTF-8 or a control character; the numbers of tokens where
/// those are no bytes.
std::string shown(const std::vector<std::int64_t>& tokens, bool is_text);

}  // namespace trireme
