#!/usr/bin/env python3
"""Reads event files with TensorBoard's own reader: check_tensorboard.py DIR [TAG ...]

Prints each scalar tag with its number of points, first and last step, and last value. Exits with 1, and one line on
standard error, when the reader finds no scalars, steps of a tag do not increase, or a TAG named is not there; with 2
when TensorBoard is not installed.
"""
import sys


def check(folder, wanted):
    from tensorboard.backend.event_processing import event_accumulator, event_file_loader
    import glob
    import os

    files = sorted(glob.glob(os.path.join(folder, "events.out.tfevents.*")))
    for name in files:
        # The accumulator passes over damaged records in silence; the loader alone stops at them.
        events = sum(1 for _ in event_file_loader.RawEventFileLoader(name).Load())
        print(f"{name}: {events} events, {os.path.getsize(name)} bytes")
        if framed_records(name) != events:
            return f"{name}: TensorBoard reads {events} of {framed_records(name)} records"

    accumulator = event_accumulator.EventAccumulator(folder, size_guidance={event_accumulator.SCALARS: 0})
    accumulator.Reload()
    tags = sorted(accumulator.Tags()["scalars"])
    if not tags:
        return f"{folder}: no scalars"
    for tag in tags:
        points = accumulator.Scalars(tag)
        steps = [point.step for point in points]
        print(f"{tag}: {len(points)} points, steps {steps[0]} to {steps[-1]}, last {points[-1].value:g}")
        if any(later <= earlier for earlier, later in zip(steps, steps[1:])):
            return f"{folder}: the steps of {tag} do not increase"
    missing = sorted(set(wanted) - set(tags))
    return f"{folder}: no scalar {', '.join(missing)}" if missing else None


def framed_records(name):
    """How many records the lengths in the file speak of; -1 when the last one is not whole."""
    with open(name, "rb") as file:
        data = file.read()
    at = count = 0
    while at + 12 <= len(data):
        at += 12 + int.from_bytes(data[at:at + 8], "little") + 4
        count += 1
    return count if at == len(data) else -1


def main():
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        problem = check(sys.argv[1], sys.argv[2:])
    except ImportError as error:
        print(f"TensorBoard is not installed ({error}): pip install tensorboard", file=sys.stderr)
        return 2
    if problem:
        print(problem, file=sys.stderr)
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
