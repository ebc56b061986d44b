// A dataset of windows of tokens from a text file.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/data/dataset.h"

namespace trireme {

/// A file of tokens of any size. It is read on demand, not loaded into memory.
///
///     text:FILE        each byte is a token
///     tokens:FILE      tokens of GPT-2's vocabulary as little-endian uint16
class TokenFile {
 public:
  /// Opens the file. Throws Error(kUsage) if `spec` has another form, and Error(kData) if the file cannot be
  /// read or does not seem to contain such tokens.
  explicit TokenFile(const std::string& spec);
  ~TokenFile();
  TokenFile(const TokenFile&) = delete;
  TokenFile& operator=(const TokenFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::int64_t size() const { return size_; }  ///< number of tokens
  std::int64_t vocabulary() const { return width_ == 1 ? 256 : 50257; }
  bool is_text() const { return width_ == 1; }
  /// Reads tokens [first, first + to.size()) into `to`. Any thread may call it. Throws Error(kData) if they
  /// cannot be read or are not in the vocabulary.
  void read(std::int64_t first, std::span<std::int64_t> to) const;

 private:
  std::filesystem::path path_;
  std::int64_t width_ = 1;  ///< bytes per token
  std::int64_t size_ = 0;
  int file_ = -1;
};

/// Windows of `context` tokens, each with the tokens that follow them. The last tenth of the file is for
/// testing, of which at most about 100000 tokens are used. The rest is for training; each epoch begins its
/// first window at another random token. Fields: tokens (context) int64, next tokens (context) int64.
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
  bool moves_;  ///< each epoch begins its first window at another token
};

/// Returns tokens as text for a terminal. If `is_text`, tokens are bytes; what is not UTF-8 and control
/// characters other than newline and tab become '?'. Otherwise returns the tokens' numbers.
std::string shown(const std::vector<std::int64_t>& tokens, bool is_text);

}  // namespace trireme
