#!/bin/sh
# The tree keeps to the rules of the house, and to its format where the clang-format that made it is there.
set -eu
python3 "$1/tests/lint/check.py" "$1"
cd "$1"
if ! clang-format --version 2>/dev/null | grep -q 'version 14'; then
  echo "format not checked: there is no clang-format 14"
  exit 0
fi
find core distributed examples kernels launcher tests -name '*.cpp' -o -name '*.h' -o -name '*.cu' | xargs clang-format --dry-run -Werror
