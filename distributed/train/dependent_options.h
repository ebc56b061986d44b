// Options that have an effect only beside a certain value of another option.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "distributed/train/job.pb.h"

namespace trireme {

/// Returns why `field`, a field of job.proto, has no effect in this job, and what to do about it. The text is
/// the end of a message that begins with the field and its value. Returns nothing if the field has an effect.
std::optional<std::string> why_no_effect(const JobOptions& job, std::string_view field);

}  // namespace trireme
