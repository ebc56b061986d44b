#!/usr/bin/env python3
"""Times steps of data parallel training beside PyTorch's DistributedDataParallel over gloo, on emulated hosts.

    ninja -C build trireme_bench
    VENV/bin/python tests/bench/ddp_vs_pytorch.py build/tests/bench_ddp

Needs PyTorch, and root for cluster/hosts.py. One rank a host, one thread a rank; both programs run in turns over the
same links. The last column is our time divided by PyTorch's, the median of all pairs; below 1.0 is faster.
"""
import argparse
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve()
ROOT = HERE.parents[2]
#: Samples of each rank, and steps of a run.
CASES = {"mlp": (128, 60), "resnet18": (16, 20), "gpt": (2, 20)}
LINKS = {"1 Gbit/s": ["--rate", "1gbit"], "10 Gbit/s": ["--rate", "10gbit"], "unshaped": []}


def torch_rank(name, batch, count):
    """What every rank of PyTorch's runs."""
    import torch
    from torch.nn import functional as F

    import networks

    torch.set_num_threads(1)
    rank, size = int(os.environ["OMPI_COMM_WORLD_RANK"]), int(os.environ["OMPI_COMM_WORLD_SIZE"])
    os.environ["GLOO_SOCKET_IFNAME"] = "eth0"
    torch.distributed.init_process_group("gloo", init_method="tcp://10.77.0.1:29511", rank=rank, world_size=size)
    model = networks.MODELS[name]()
    if name == "resnet18":
        model = model.to(memory_format=torch.channels_last)
    ddp = torch.nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
    if name == "gpt":
        x, labels = torch.randint(10, (batch, 256)), torch.randint(10, (batch * 256,))
        optimizer = torch.optim.AdamW(ddp.parameters(), lr=1e-3, weight_decay=0.1, fused=True)
    else:
        side, channels = (28, 1) if name == "mlp" else (32, 3)
        x, labels = torch.rand(batch, channels, side, side), torch.randint(10, (batch,))
        if name == "resnet18":
            x = x.to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(ddp.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)
    times, begin = [], time.perf_counter()
    for _ in range(count):
        optimizer.zero_grad()
        F.cross_entropy(ddp(x).flatten(0, -2), labels).backward()
        optimizer.step()
        end = time.perf_counter()
        times.append(1e3 * (end - begin))
        begin = end
    if rank == 0:
        print(f"ms_a_step {statistics.median(times[10:]):.3f}", flush=True)
    torch.distributed.barrier()


def measure(hosts, link, command):
    run = subprocess.run([str(ROOT / "cluster/hosts.py"), "--hosts", str(hosts), *link, "--", *command],
                         capture_output=True, text=True, env=dict(os.environ, OMP_NUM_THREADS="1"), timeout=600)
    found = re.search(r"ms_a_step ([0-9.]+)", run.stdout)
    if not found or "no emulated hosts" in run.stderr:
        sys.exit(f"ddp_vs_pytorch.py: {' '.join(command)} failed:\n{run.stdout[-1000:]}{run.stderr[-2000:]}")
    return float(found[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="bench_ddp")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--hosts", type=int, nargs="*", default=[2, 4])
    parser.add_argument("--models", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--flag", action="append", default=[], help="of bench_ddp, such as --flag=--zero=1")
    parser.add_argument("--links", nargs="*", default=list(LINKS), choices=list(LINKS))
    options = parser.parse_args()
    print(f"{'model':9} {'hosts':>5} {'link':>10} {'ours ms':>9} {'PyTorch ms':>10} {'ratio':>6}")
    for name in options.models:
        batch, count = CASES[name]
        for hosts in options.hosts:
            ours = [os.path.abspath(options.program), "--model", name, "--steps", str(count), "--global-batch",
                    str(batch * hosts), "--threads", "1", *options.flag]
            theirs = [sys.executable, str(HERE), "--rank", name, str(batch), str(count)]
            for link in options.links:
                pairs = [(measure(hosts, LINKS[link], ours), measure(hosts, LINKS[link], theirs))
                         for _ in range(options.pairs)]
                ratios = sorted(a / b for a, b in pairs)
                print(f"{name:9} {hosts:5} {link:>10} {statistics.median(a for a, _ in pairs):9.1f} "
                      f"{statistics.median(b for _, b in pairs):10.1f} {statistics.median(ratios):6.2f} "
                      f"({ratios[0]:.2f} to {ratios[-1]:.2f})", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rank"]:
        torch_rank(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
