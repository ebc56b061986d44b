#!/bin/sh
# The tree keeps to the rules of the house.
exec python3 "$1/tests/lint/check.py" "$1"
