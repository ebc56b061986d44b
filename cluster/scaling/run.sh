#!/bin/sh
# Weak and strong scaling over ranks, models and links: cluster/scaling/run.sh [--help]
exec python3 "$(dirname "$0")/scaling.py" "$@"
