// Options that have an effect only beside a certain value of another option.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "distributed/train/job.pb.h"

namespace trireme {

/// Returns what makes this field of job.proto mean nothing in a job, and what to do, as the end of a message
/// that begins with the field and its value; nothing if the field has an effect.
std::optional<std::string> why_no_effect(const JobOptions& job, std::string_view field);

}  // namespace trireme
