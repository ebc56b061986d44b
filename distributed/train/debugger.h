// A debugger that looks at this process.
#pragma once

namespace trireme {

/// Whether there is one.
bool has_debugger();
/// Gives it the word (SIGTRAP), as a breakpoint does; what it continues goes on behind this call. Without one
/// it returns at once.
void stop_in_debugger();

}  // namespace trireme
