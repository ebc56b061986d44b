// Terminals: how wide they are, and whether they show colours.
#pragma once

namespace trireme {

/// The variable by which `trireme launch` tells its ranks how wide the terminal is that shows what they write
/// to standard error; unset or 0 where there is none.
inline constexpr const char* kColumnsVariable = "TRIREME_COLUMNS";

/// Returns the columns of the terminal that `descriptor` is open on, 80 where it does not know its size; 0 if
/// `descriptor` is no terminal, or one that cannot move its cursor (TERM unset or dumb).
int terminal_columns(int descriptor);

/// Returns the columns of the terminal that shows what this process writes to standard error, directly or
/// through the mpirun or `trireme launch` that started it; 0 if there is none.
int columns_of_standard_error();

/// Returns whether this process may use colours on a terminal: the variable NO_COLOR is not set.
bool may_use_colours();

}  // namespace trireme
