#!/usr/bin/env python3
"""Times single ops on 2^20 float32 numbers, alternately in bench_ops and in PyTorch.

    ninja -C build trireme_bench
    python3 tests/bench/ops.py build/tests/bench_ops --threads 2 --pairs 5

Prints microseconds of the forward pass and of forward and backward together, and our time divided by
PyTorch's (medians of all pairs), the slowest first. `--only PATTERN` chooses ops, `--above R` prints only those
whose ratio is above R. Needs PyTorch.
"""

import argparse
import fnmatch
import os
import statistics
import subprocess
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("program", help="bench_ops")
parser.add_argument("--threads", type=int, default=2, help="CPU threads of each side")
parser.add_argument("--pairs", type=int, default=5, help="alternations per op")
parser.add_argument("--seconds", type=float, default=0.05, help="length of each measurement")
parser.add_argument("--only", nargs="*", default=["*"], help="names of ops, with * and ?")
parser.add_argument("--above", type=float, default=0, help="print only ops with a ratio above this")
args = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(args.threads)

import torch  # noqa: E402  (reads OMP_NUM_THREADS)
from torch.nn import functional as F  # noqa: E402

torch.set_num_threads(args.threads)
PAUSE = 0.01  # seconds in which the other side's threads stop spinning

OTHER = {
    "silu": F.silu, "log_sigmoid": F.logsigmoid, "softplus": F.softplus, "relu6": F.relu6, "elu": F.elu,
    "hardtanh": F.hardtanh, "leaky_relu": F.leaky_relu, "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "clamp": lambda x: torch.clamp(x, -1, 1),
    "add_scalar": lambda x: x + 2, "mul_scalar": lambda x: x * 2, "div_scalar": lambda x: x / 3,
    "rsub_scalar": lambda x: 2 - x, "pow2": lambda x: x**2, "pow3": lambda x: x**3,
    "pow_half": lambda x: x**0.5, "pow_base": lambda x: 2**x,
    "lerp": lambda a, b: torch.lerp(a, b, 0.25), "lerp_weight": torch.lerp,
    "addcmul": lambda x, a, b: torch.addcmul(x, a, b, value=0.5),
    "addcdiv": lambda x, a, b: torch.addcdiv(x, a, b, value=0.5),
    "where": lambda a, b: torch.where(a.detach() > 0, a, b),
    "masked_fill": lambda x: x.masked_fill(x.detach() > 0, 0),
    "softmax": lambda x: F.softmax(x, -1), "log_softmax": lambda x: F.log_softmax(x, -1),
    "logsumexp": lambda x: torch.logsumexp(x, -1), "layer_norm": lambda x: F.layer_norm(x, x.shape[-1:]),
    "rms_norm": lambda x: F.rms_norm(x, x.shape[-1:]),
    "group_norm": lambda x: F.group_norm(x.reshape(16, 64, 32, 32), 8),
    "sum_rows": lambda x: x.sum(0), "sum_columns": lambda x: x.sum(1), "prod_columns": lambda x: x.prod(1),
    "amax_columns": lambda x: x.amax(1), "var_columns": lambda x: x.var(1), "std_columns": lambda x: x.std(1),
    "norm": lambda x: torch.linalg.vector_norm(x),
    "norm1_columns": lambda x: torch.linalg.vector_norm(x, 1, 1),
    "norm3_columns": lambda x: torch.linalg.vector_norm(x, 3, 1), "cumsum": lambda x: x.cumsum(1),
    "mse_loss": lambda a, b: F.mse_loss(a, b.detach()), "l1_loss": lambda a, b: F.l1_loss(a, b.detach()),
    "huber_loss": lambda a, b: F.huber_loss(a, b.detach()),
    "bce_with_logits": lambda a, b: F.binary_cross_entropy_with_logits(a, b.detach()),
    "kl_div": lambda a, b: F.kl_div(a, b.detach()), "cat": lambda a, b: torch.cat([a, b], 1),
    "flip": lambda x: x.flip(1), "roll": lambda x: x.roll(5, 1), "pad": lambda x: F.pad(x, (1, 1, 1, 1)),
    "repeat": lambda x: x[:512].repeat(2, 1), "transposed": lambda x: x.t().contiguous(),
}


def ramp(domain, number):
    """Returns the matrix that bench_ops uses as input `number`."""
    low = {"all": -3.0, "unit": -0.9}.get(domain, 0.1)
    high = 0.9 if domain in ("unit", "share") else 3.0
    steps = (torch.arange(1024 * 1024) * 7919 + 101 * number) % 65536
    return (low + (high - low) * steps.float() / 65536).reshape(1024, 1024).requires_grad_()


def median_us(body):
    body()
    times, begin = [], time.perf_counter()
    while len(times) < 5 or time.perf_counter() - begin < args.seconds:
        start = time.perf_counter()
        body()
        times.append((time.perf_counter() - start) * 1e6)
    return statistics.median(times)


def time_pytorch(name, count, domain):
    op = OTHER.get(name) or getattr(torch, name)
    inputs = [ramp(domain, i) for i in range(count)]

    def alone():
        with torch.no_grad():
            op(*inputs)

    gradient = torch.ones_like(op(*inputs))

    def both():
        for t in inputs:
            t.grad = None
        op(*inputs).backward(gradient)

    return median_us(alone), median_us(both)


ours = subprocess.Popen([args.program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def time_ours(name):
    ours.stdin.write(f"{name} {args.seconds}\n")
    ours.stdin.flush()
    return tuple(float(word) for word in ours.stdout.readline().split())


rows = []
for line in subprocess.check_output([args.program, "--list"], text=True).splitlines():
    name, count, domain = line.split()
    if not any(fnmatch.fnmatch(name, pattern) for pattern in args.only):
        continue
    pairs = []
    for _ in range(args.pairs):
        mine = time_ours(name)
        time.sleep(PAUSE)
        pairs.append((mine, time_pytorch(name, int(count), domain)))
        time.sleep(PAUSE)
    middle = [statistics.median(pair[side][i] for pair in pairs) for side in (0, 1) for i in (0, 1)]
    ratios = [statistics.median(a[i] / b[i] for a, b in pairs) for i in (0, 1)]
    rows.append((name, *middle, *ratios))

print(f"{'':16}{'forward, us':>24}{'forward + backward, us':>34}")
print(f"{'op':16}{'ours':>8}{'PyTorch':>9}{'ratio':>7}{'ours':>18}{'PyTorch':>9}{'ratio':>7}")
for name, forward, both, forward_other, both_other, ratio, ratio_both in sorted(
        rows, key=lambda row: -max(row[5:])):
    if max(ratio, ratio_both) > args.above:
        print(f"{name:16}{forward:8.0f}{forward_other:9.0f}{ratio:7.2f}"
              f"{both:18.0f}{both_other:9.0f}{ratio_both:7.2f}")
