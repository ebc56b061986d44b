#!/usr/bin/env python3
"""Puts `trireme simulate` beside emulated hosts: step times predicted from a trace, and measured.

    tests/bench/simulate_vs_hosts.py build --hosts 2 4 8 --rates 200mbit 1gbit 5gbit

For each model and number of hosts one run over unshaped links is traced. What its sums cost there (`--link trace`) and
each rate give the link to predict; then the job is run over it. Shaping lets some 70 kB through at once
after a pause, so small models are a little faster over slow links than predicted. With --traced N all predictions come from traces of N
hosts, and computing is taken to be slower as far as more ranks share the cores of this machine. Needs root for
cluster/hosts.py, and a quiet machine.
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
#: Data, samples of a rank, and more flags.
CASES = {"mlp": ("synthetic:1,28,28,10,8192", 512, []), "resnet8": ("synthetic:3,32,32,10,4096", 32, []),
         "resnet18": ("synthetic:3,32,32,10,512", 4, []), "vit": ("synthetic:3,32,32,10,1024", 8, [])}
UNITS = {"mbit": 1e6 / 8, "gbit": 1e9 / 8}
GOODPUT = 0.95  # of a rate: 1448 bytes of each frame's 1514, and acknowledgements
UNSHAPED = "unshaped"  # for a rate: how well one run of a job tells of another
WARM_UP = 5


def run_job(options, model, hosts, rate, folder):
    """Median of the steps' times in milliseconds. Metrics and traces are in the folder."""
    data, batch, flags = CASES[model]
    folder.mkdir(parents=True)
    shape = ["--rate", rate] if rate else []
    job = [str(options.build / "bin/train_classifier"), "--model", model, "--data", data, "--global-batch", str(batch * hosts),
           "--steps", str(options.steps), "--threads", "1", "--eval-every", "0", "--quiet", "--compress-links", "off", "--metrics",
           str(folder / "metrics.jsonl"), "--trace", str(folder), "--bucket-mb", str(options.bucket_mb), *flags]
    ran = subprocess.run([str(ROOT / "cluster/hosts.py"), "--hosts", str(hosts), *shape, "--", *job], capture_output=True,
                         text=True, env=dict(os.environ, OMP_NUM_THREADS="1"), timeout=900)
    if ran.returncode != 0 or "no emulated hosts" in ran.stderr:
        sys.exit(f"simulate_vs_hosts.py: {' '.join(job)} failed:\n{ran.stderr[-2000:]}")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return statistics.median(line["step_ms"] for line in lines[WARM_UP:])


def simulate(options, trace, hosts, link, scale):
    """The link in figures, and the step's time in milliseconds."""
    told = subprocess.run([str(options.build / "bin/trireme"), "simulate", "--trace", str(trace), "--ranks", str(hosts), "--link",
                           link, "--compute-scale", str(scale)], capture_output=True, text=True)
    if told.returncode != 0:
        sys.exit(f"simulate_vs_hosts.py: {told.stderr}")
    figures = re.search(r"^link: .*?, ([0-9.e+-]+us),([0-9.e+]+)MB/s,([0-9.e+-]+us);", told.stdout, re.M)
    return figures.groups(), float(re.search(rf"^ *{hosts} +([0-9.]+) ", told.stdout, re.M)[1])


def link_of(figures, rate):
    latency, bandwidth, message = figures
    number, unit = re.fullmatch(r"([0-9.]+)(\w+)", rate).groups()
    wire = float(number) * UNITS[unit] * GOODPUT / 1e6
    # No link is without latency; one that the fit left out is a microsecond.
    at_least = lambda time: time if float(time[:-2]) > 0 else "1us"  # noqa: E731
    return f"{at_least(latency)},{min(float(bandwidth), wire):.4g}MB/s,{at_least(message)}"


def one_round(options, model, hosts, folder):
    """Traces, then yields (rate, (measured, predicted)) for each rate."""
    traced = options.traced or hosts
    run_job(options, model, traced, None, folder / "traced")
    figures, _ = simulate(options, folder / "traced", traced, "trace", 1)
    scale = max(1, hosts / os.cpu_count()) / max(1, traced / os.cpu_count())
    for rate in options.rates:
        measured = run_job(options, model, hosts, None if rate == UNSHAPED else rate, folder / rate)
        link = "trace" if rate == UNSHAPED else link_of(figures, rate)
        yield rate, (measured, simulate(options, folder / "traced", hosts, link, scale)[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--models", nargs="*", default=["mlp", "resnet8"], choices=list(CASES))
    parser.add_argument("--hosts", type=int, nargs="*", default=[2, 4, 8])
    parser.add_argument("--rates", nargs="*", default=["200mbit", "1gbit", "5gbit"])
    parser.add_argument("--traced", type=int, help="hosts of the traced run (as many as are predicted)")
    parser.add_argument("--pairs", type=int, default=3, help="predictions and measurements of each, in turns; medians are shown")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--bucket-mb", type=float, default=0.5)
    options = parser.parse_args()
    options.build = options.build.resolve()
    folder, errors = pathlib.Path(tempfile.mkdtemp(prefix="trireme-simulate-")), []
    print(f"{'model':9} {'hosts':>5} {'link':>9} {'measured ms':>11} {'predicted ms':>12} {'error':>7}")
    try:
        for model in options.models:
            for hosts in options.hosts:
                pairs = {rate: [] for rate in options.rates}
                for number in range(options.pairs):
                    for rate, pair in one_round(options, model, hosts, folder / f"{model}-{hosts}-{number}"):
                        pairs[rate].append(pair)
                for rate, made in pairs.items():
                    ratios = sorted(predicted / measured for measured, predicted in made)
                    errors.append(statistics.median(ratios) - 1)
                    print(f"{model:9} {hosts:5} {rate:>9} {statistics.median(m for m, _ in made):11.1f} "
                          f"{statistics.median(p for _, p in made):12.1f} {100 * errors[-1]:+6.1f}% "
                          f"({100 * ratios[0] - 100:+.1f} to {100 * ratios[-1] - 100:+.1f})", flush=True)
        size = [100 * abs(error) for error in errors]
        print(f"error: median {statistics.median(size):.1f} %, at most {max(size):.1f} %")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
