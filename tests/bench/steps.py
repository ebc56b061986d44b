#!/usr/bin/env python3
"""Times a training step of some networks beside PyTorch, in alternating pairs.

    ninja -C build trireme_bench
    python3 tests/bench/steps.py build/tests/bench_steps --threads 2 --pairs 7
    python3 tests/bench/steps.py build/tests/bench_steps --device cuda --dtype bfloat16 --compile

Needs PyTorch, except with --only ours. Both sides first try their settings (PyTorch: eager, channels last,
and compiled with --compile; ours on a GPU: with and without CUDA graphs) and go on with the fastest. The last
column is our time divided by PyTorch's, the median of all pairs; below 1.0 we are faster. A setting that
fails is reported with its reason, and the others are still compared. Exit code 1: a setting failed.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
import traceback


def arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="bench_steps, or a command that runs it with further options")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of each side")
    parser.add_argument("--pairs", type=int, default=7, help="0: report the times of the settings alone")
    parser.add_argument("--seconds", type=float, default=2, help="length of each measurement")
    parser.add_argument("--iterations", type=int, help="time exactly this many steps instead of --seconds")
    parser.add_argument("--compile", action="store_true", help="also try torch.compile")
    parser.add_argument("--compile-only", action="store_true",
                        help="try only torch.compile, with channels last for convolutional networks")
    parser.add_argument("--only", choices=["ours", "pytorch"], help="time one side alone")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="cuda: larger networks")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"],
                        help="bfloat16: autocast")
    parser.add_argument("--models", nargs="*", help="gpt mlp lenet resnet18 mobilenet; on a GPU gpt mlp resnet50")
    parser.add_argument("--json", help="also write all figures to this file")
    return parser.parse_args()


args = arguments()
os.environ["OMP_NUM_THREADS"] = str(args.threads)

if args.only != "ours":
    import torch  # after OMP_NUM_THREADS is set, which it reads
    from torch.nn import functional as F

    from networks import Gpt, lenet, mlp, mobilenet, resnet18

    torch.set_num_threads(args.threads)


def images(batch, channels, side):
    return torch.rand(batch, channels, side, side), torch.randint(10, (batch,))


def tokens(batch, context, vocabulary):
    return torch.randint(vocabulary, (batch, context)), torch.randint(vocabulary, (batch * context,))


def resnet50():
    from torchvision.models import resnet50 as make

    return make()


# name -> functions that make the model and its data. The most valuable comparison comes first.
if args.device == "cpu":
    CASES = {
        "gpt": (lambda: Gpt(), lambda: tokens(8, 256, 256)),
        "mlp": (lambda: mlp(), lambda: images(128, 1, 28)),
        "lenet": (lambda: lenet(), lambda: images(64, 1, 28)),
        "resnet18": (lambda: resnet18(), lambda: images(64, 3, 32)),
        "mobilenet": (lambda: mobilenet(), lambda: images(8, 3, 224)),
    }
else:
    CASES = {
        "gpt": (lambda: Gpt(layers=12, width=768, heads=12, context=1024, vocabulary=50257),
                lambda: tokens(8, 1024, 50257)),
        "mlp": (lambda: mlp(), lambda: images(128, 1, 28)),
        "resnet50": (resnet50, lambda: images(128, 3, 224)),
    }
CONVOLUTIONAL = ("lenet", "mobilenet", "resnet18", "resnet50")

# Steps between two waits of the host for a GPU, as in steps.cpp.
ROUND = 1 if args.device == "cpu" else min(10, args.iterations or 10)


def synchronize():
    if args.device == "cuda":
        torch.cuda.synchronize()


def torch_step(name, setting):
    """Returns a function that makes one step."""
    make, data = CASES[name]
    model, (x, labels) = make().to(args.device), (t.to(args.device) for t in data())
    if "channels_last" in setting:
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    if name == "gpt":
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1, fused=True)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)
    if "compile" in setting:
        model = torch.compile(model)

    def step():
        optimizer.zero_grad()
        with torch.autocast(args.device, torch.bfloat16, enabled=args.dtype == "bfloat16"):
            loss = F.cross_entropy(model(x).flatten(0, -2), labels)
        loss.backward()
        optimizer.step()

    for _ in range(3):
        step()
    synchronize()
    return step


def torch_time(step):
    """Returns milliseconds per step."""
    count, start = 0, time.perf_counter()

    def enough():
        if args.iterations:
            return count >= args.iterations
        return time.perf_counter() - start >= args.seconds and count >= 2

    while not enough():
        for _ in range(ROUND):
            step()
        synchronize()
        count += ROUND
    return (time.perf_counter() - start) / count * 1e3


class ProgramFailed(Exception):
    """Our program returned an error: its exit code and the last line of its standard error."""


def our_time(name, setting):
    """Returns milliseconds per step. Passes on the program's standard error as it comes."""
    length = [f"--benchmark_min_time={args.seconds}"]
    if args.iterations:
        length = ["--iterations", str(args.iterations)]
    command = [*shlex.split(args.program), f"--benchmark_filter=/{name}/", "--benchmark_format=json", *length,
               args.device, args.dtype, setting]
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, text=True, errors="replace")
        last = "it said nothing on standard error"
        for line in process.stderr:
            print(line, end="", file=sys.stderr, flush=True)
            last = line.strip() or last
        if process.wait() != 0:
            raise ProgramFailed(f"exit code {process.returncode}: {last}")
        out.seek(0)
        return json.loads(out.read())["benchmarks"][0]["real_time"]


def our_settings():
    if args.only == "pytorch":
        return []
    return ["eager"] if args.device == "cpu" else ["eager", "graph"]


def settings_of(name):
    if args.only == "ours":
        return []
    if args.compile_only:
        return ["channels_last+compile" if name in CONVOLUTIONAL else "eager+compile"]
    kinds = ["eager"] + (["channels_last"] if name in CONVOLUTIONAL else [])
    return kinds + ([f"{kind}+compile" for kind in kinds] if args.compile else [])


failures = 0


def attempt(what, measure):
    """Returns measure(), or None after saying why it failed."""
    global failures
    try:
        return measure()
    except Exception as error:  # whatever PyTorch, its compiler or our program may have
        failures += 1
        if not isinstance(error, ProgramFailed):
            traceback.print_exc()
        print(f"{what}: failed: {(str(error).strip() or type(error).__name__).splitlines()[0]}", flush=True)
        return None


def try_all(who, settings, measure):
    """Returns setting -> time of those settings that work, and prints each."""
    tried = {}
    for setting in settings:
        milliseconds = attempt(f"{who} ({setting})", lambda: measure(setting))
        if milliseconds is not None:
            tried[setting] = milliseconds
            print(f"{who} ({setting}): {milliseconds:.2f} ms", flush=True)
    return tried


def compare(name):
    """Returns all figures of one network, and prints its row."""
    steps = {}

    def first_time(setting):
        steps[setting] = torch_step(name, setting)
        return torch_time(steps[setting])

    ours = try_all(f"{name}, ours", our_settings(), lambda setting: our_time(name, setting))
    theirs = try_all(f"{name}, PyTorch", settings_of(name), first_time)
    figures = {"ours_ms": ours, "pytorch_ms": theirs, "ratios": []}
    if not ours or not theirs:
        return figures
    our_best, best = min(ours, key=ours.get), min(theirs, key=theirs.get)
    pairs = [(ours[our_best], theirs[best])] if args.pairs == 0 else []
    for _ in range(args.pairs):
        pair = attempt(f"{name}, pair", lambda: (our_time(name, our_best), torch_time(steps[best])))
        if pair:
            pairs.append(pair)
            print(f"{name}, pair: ours {pair[0]:.2f}, PyTorch {pair[1]:.2f} ms", flush=True)
    if not pairs:
        return figures
    ratios = sorted(a / b for a, b in pairs)
    figures.update(our_best=our_best, best=best, ratios=ratios)
    mine, others = (statistics.median(times) for times in zip(*pairs))
    print(f"{name:9} ours ({our_best}) {mine:8.2f}   PyTorch ({best}) {others:8.2f}   "
          f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})", flush=True)
    return figures


def main():
    where = f"{args.threads} threads" if args.device == "cpu" else "one GPU"
    if args.only != "ours" and args.device == "cuda":
        where = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU that PyTorch sees"
    version = None if args.only == "ours" else torch.__version__
    length = f"{args.iterations} steps" if args.iterations else f"{args.seconds:g} s"
    print(f"PyTorch {version or 'left out'}, {where}, {args.dtype}, {args.pairs} pairs, {length} each, "
          "ms a step", flush=True)
    results = {}
    for name in args.models or CASES:
        results[name] = compare(name)
        if args.json:
            with open(args.json, "w", encoding="utf-8") as file:
                json.dump({"pytorch": version, "where": where, "dtype": args.dtype, "steps": results}, file)
    return 1 if failures else 0


sys.exit(main())
