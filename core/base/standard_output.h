// Standard output as a program's result: what is lost there is an error.
#pragma once

namespace trireme {

/// Gives a number to those of standard input, output and error that came closed, so that no file which is
/// opened later receives what is printed there. Call first in main.
void hold_standard_files();

/// Flushes standard output. Returns `code`; 1, after one line on standard error, if that is 0 and something
/// that was printed has been lost (a full disk, a closed file).
int checked_output(int code);

}  // namespace trireme
