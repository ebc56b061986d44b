// A debugger that looks at this process.
#pragma once

namespace trireme {

/// Returns true if a debugger is attached to this process.
bool has_debugger();
/// Stops in the attached debugger by raising SIGTRAP, as a breakpoint does. When the debugger continues the
/// process, the call returns. Without a debugger it returns at once.
void stop_in_debugger();

}  // namespace trireme
