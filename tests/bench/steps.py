#!/usr/bin/env python3
"""Times a training step of some networks beside PyTorch, in alternating pairs.

    ninja -C build trireme_bench
    python3 tests/bench/steps.py build/tests/bench_steps --threads 2 --pairs 7
    python3 tests/bench/steps.py build/tests/bench_steps --device cuda --dtype bfloat16 --compile --json speed.json

Needs PyTorch. For every network PyTorch first tries its settings (eager, channels last, and compiled with
--compile) and goes on with the fastest; on a GPU so do we (with CUDA graphs, and without). The last column is our time divided by PyTorch's, the median of all
pairs; below 1.0 is faster.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import time


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="bench_steps, or a command that runs it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2, help="of each measurement")
    parser.add_argument("--compile", action="store_true", help="try torch.compile, too")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="cuda: larger networks")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="bfloat16: autocast")
    parser.add_argument("--models", nargs="*", help="mlp lenet resnet18 gpt; on a GPU mlp resnet50 gpt")
    parser.add_argument("--json", help="write all figures here, too")
    return parser.parse_args()


args = arguments()
os.environ["OMP_NUM_THREADS"] = str(args.threads)

import torch  # noqa: E402 (the number of threads is read when it is loaded)
from torch.nn import functional as F  # noqa: E402

from networks import Gpt, lenet, mlp, resnet18  # noqa: E402

torch.set_num_threads(args.threads)


def images(batch, channels, side):
    return torch.rand(batch, channels, side, side), torch.randint(10, (batch,))


def resnet50():
    from torchvision.models import resnet50 as make

    return make()


def gpt2():
    return Gpt(layers=12, width=768, heads=12, context=1024, vocabulary=50257)


if args.device == "cpu":
    CASES = {
        "mlp": (mlp, lambda: images(128, 1, 28)),
        "lenet": (lenet, lambda: images(64, 1, 28)),
        "resnet18": (resnet18, lambda: images(64, 3, 32)),
        "gpt": (Gpt, lambda: (torch.randint(256, (8, 256)), torch.randint(256, (8 * 256,)))),
    }
else:
    CASES = {
        "mlp": (mlp, lambda: images(128, 1, 28)),
        "resnet50": (resnet50, lambda: images(128, 3, 224)),
        "gpt": (gpt2, lambda: (torch.randint(50257, (8, 1024)), torch.randint(50257, (8 * 1024,)))),
    }


def synchronize():
    if args.device == "cuda":
        torch.cuda.synchronize()


def torch_step(name, setting):
    """A function that makes one step."""
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
    return step


# Steps between two waits of the host for a GPU; as in steps.cpp.
ROUND = 1 if args.device == "cpu" else 10


def torch_time(step):
    count, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < args.seconds or count < 2:
        for _ in range(ROUND):
            step()
        synchronize()
        count += ROUND
    return spent / count * 1e3


def our_time(name, setting):
    command = [*shlex.split(args.program), f"--benchmark_filter=/{name}/", f"--benchmark_min_time={args.seconds}", "--benchmark_format=json",
               args.device, args.dtype, setting]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    return json.loads(out)["benchmarks"][0]["real_time"]


def settings_of(name):
    kinds = ["eager"] + (["channels_last"] if name in ("lenet", "resnet18", "resnet50") else [])
    return kinds + ([f"{kind}+compile" for kind in kinds] if args.compile else [])


where = f"{args.threads} threads" if args.device == "cpu" else torch.cuda.get_device_name()
print(f"PyTorch {torch.__version__}, {where}, {args.dtype}, {args.pairs} pairs, {args.seconds:g} s each, ms a step")
results = {}
for name in args.models or CASES:
    steps = {setting: torch_step(name, setting) for setting in settings_of(name)}
    tried = {setting: torch_time(step) for setting, step in steps.items()}
    best = min(tried, key=tried.get)
    ours_tried = {setting: our_time(name, setting) for setting in ("eager", "graph")[: 1 if args.device == "cpu" else 2]}
    our_best = min(ours_tried, key=ours_tried.get)
    pairs = [(our_time(name, our_best), torch_time(steps[best])) for _ in range(args.pairs)]
    ours, theirs = zip(*pairs)
    ratios = sorted(a / b for a, b in pairs)
    results[name] = {"ours_ms": ours_tried, "our_best": our_best, "pytorch_ms": tried, "best": best, "ratios": ratios}
    print(f"{name:9} ours ({our_best}) {statistics.median(ours):8.2f}   PyTorch ({best}) {statistics.median(theirs):8.2f}   "
          f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})", flush=True)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({"pytorch": torch.__version__, "where": where, "dtype": args.dtype, "steps": results}, file)
