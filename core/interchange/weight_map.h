// Maps the tensors of a file to those of a model if the two programs name them differently.
//
// A map is plain text, one rule a line:
//
//   # ours               theirs                               what is done to theirs, in order
//   h.{i}.attn.weight    transformer.h.{i}.attn.c_attn.weight transpose
//   h.{i}.query.weight   h.{i}.qkv.weight                     part=1/3
//   norm.{*}             transformer.ln_f.{*}
//   head.weight          -                                    ours keeps its initial value
//   -                    {*}.num_batches_tracked              theirs is not wanted
//
// {i}, {layer}, ... stand for a number, {*}, {*rest}, ... for any text; of one name they are the same
// everywhere in a line. The first line that fits counts. `transpose` swaps the last two dimensions;
// `part=K/N` takes the K-th of N equal parts of the first dimension.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/text_file.h"
#include "core/tensor/tensor.h"

namespace trireme {

/// A step on the way from their tensor to ours.
struct WeightStep {
  int part = 0, parts = 0;  ///< parts 0: transpose
};

/// The source of one of our tensors.
struct WeightSource {
  std::string name;  ///< theirs; "-": nothing, ours keeps its value
  std::vector<WeightStep> steps;
};

class WeightMap {
 public:
  /// Every name is the same on both sides.
  WeightMap();
  /// Throws Error(kUsage) naming `where`, the line and what is wrong with it.
  static WeightMap parse(const std::string& text, const std::string& where);
  /// Throws Error(kUsage) also if the file cannot be read. `patience` bounds the wait for a pipe's writer.
  static WeightMap read(const std::filesystem::path& path,
                        std::chrono::milliseconds patience = kPipePatience);

  /// Returns the source of our tensor, or nothing if no line names it.
  std::optional<WeightSource> source_of(const std::string& ours) const;
  /// Returns true if a line says that their tensor is not needed.
  bool ignores(const std::string& theirs) const;

 private:
  struct Line {
    std::string ours, theirs;
    std::vector<WeightStep> steps;
  };
  std::vector<Line> lines_;
};

/// A view of their tensor after the steps; throws Error(kCheckpoint) without a name where a step does not
/// fit its shape.
Tensor stepped(Tensor theirs, const std::vector<WeightStep>& steps);

}  // namespace trireme
