#!/usr/bin/env python3
"""Weak and strong scaling of training over ranks, models and links.

    cluster/scaling/run.sh --models resnet8,mlp --ranks 1,2,4 --links 1gbit,10gbit --out build/scaling

Each run trains a few steps on emulated hosts (cluster/hosts.py, one rank a host unless --per-host says otherwise), on one
thread a rank. Weak scaling keeps the samples of a rank, strong scaling those of all. OUT/scaling.csv gets one row a run,
OUT/runs/NAME its metrics and traces, OUT/report.html the pictures. Figures are medians over steps, without the first
ones. Where no hosts can be emulated all ranks run on this host over its loopback, and every row says so.
"""
import argparse
import contextlib
import csv
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "cluster"))
import hosts  # noqa: E402 (beside this folder)

COLUMNS = ["mode", "model", "ranks", "hosts", "link", "global_batch", "steps", "samples_per_s", "step_ms", "forward_ms",
           "backward_ms", "comm_ms", "comm_exposed_ms", "efficiency", "bytes_per_step", "cores", "run"]
DATA = {"mlp": "synthetic:1,28,28,10,4096", "lenet": "synthetic:1,28,28,10,4096"}
OTHER_DATA = "synthetic:3,32,32,10,4096"
#: Samples of a rank, so that a step takes some tens of milliseconds on one core.
BATCH = {"mlp": 256, "lenet": 128, "resnet8": 64, "resnet18": 16}
UNSHAPED, LOOPBACK = "unshaped", "loopback"
SECONDS = 600  # a run that takes longer hangs


def median_of(lines, key):
    return statistics.median(line[key] for line in lines)


def sum_bytes(trace):
    """Bytes that a rank brings to the sums of one step: the median over steps."""
    steps, sums = [], []
    for event in json.loads(trace.read_text())["traceEvents"]:
        if event["ph"] == "X" and event["cat"] == "step":
            steps.append((event["ts"], event["ts"] + event["dur"]))
        elif event["ph"] == "X" and re.match(r"(sum|all_reduce)", event["name"]) and "bytes" in event.get("args", {}):
            sums.append((event["ts"], event["args"]["bytes"]))
    totals = [sum(size for at, size in sums if begin <= at < end) for begin, end in steps]
    return int(statistics.median(totals)) if totals else 0


def can_emulate():
    """Whether hosts.py makes hosts here; else why not."""
    tried = subprocess.run([str(ROOT / "cluster/hosts.py"), "--hosts", "2", "--", "true"], capture_output=True, text=True)
    if "another run has its hosts" in tried.stderr:
        sys.exit(f"scaling.py: {tried.stderr.strip()}")
    refused = re.search(r"no emulated hosts here \((.*)\);", tried.stderr)
    return refused[1] if refused else None


def run_to_end(command, log):
    """Its exit code. Whatever stops this program stops it, too, in the way that lets it clean up."""
    environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                       OMPI_MCA_mpi_yield_when_idle="1", OMP_NUM_THREADS="1")
    with open(log, "w", encoding="utf-8") as file:
        started = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
    try:
        return started.wait(SECONDS)
    except BaseException:
        started.terminate()
        started.wait()
        raise


def run_one(options, run, folder):
    """Trains; its metrics without the first steps, and bytes a step."""
    program = [str(options.build / "bin/train_classifier"), "--model", run["model"], "--data",
               DATA.get(run["model"], OTHER_DATA), "--global-batch", str(run["global_batch"]), "--steps", str(options.steps),
               "--threads", "1", "--eval-every", "0", "--quiet", "--metrics", str(folder / "metrics.jsonl"), "--trace",
               str(folder), *options.train_flags]
    if run["ranks"] == 1:
        command = program
    elif run["link"] == LOOPBACK:
        command = ["mpirun", "-np", str(run["ranks"]), "--oversubscribe", "--bind-to", "none", *program]
    else:
        rate = [] if run["link"] == UNSHAPED else ["--rate", run["link"]]
        command = [str(ROOT / "cluster/hosts.py"), "--hosts", str(run["hosts"]), "--per-host",
                   str(run["ranks"] // run["hosts"]), *rate, "--", *program]
    code = run_to_end(command, folder / "log")
    if code != 0:
        # The program's own line comes first, what mpirun says of it after a row of dashes.
        said = [line for line in (folder / "log").read_text(errors="replace").splitlines() if line.strip("- ")]
        print(f"scaling.py: {run['run']} ended with exit code {code}: {(said or ['nothing was said'])[0]} "
              f"(all of it: {folder / 'log'})", file=sys.stderr)
        sys.exit(code if code == 2 else 1)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return lines[max(2, len(lines) // 5):] or lines[-1:], sum_bytes(folder / "trace-rank-0.json")


def planned(options, links):
    """All runs, those of one curve one after another."""
    for model in options.models:
        batch = options.batch or BATCH.get(model, 16)
        for link in links:
            for mode in options.modes:
                for ranks in options.ranks:
                    whole = batch * (ranks if mode == "weak" else max(options.ranks))
                    on = 1 if link == LOOPBACK else max(1, ranks // options.per_host)
                    yield {"mode": mode, "model": model, "ranks": ranks, "hosts": on, "link": link, "global_batch": whole,
                           "steps": options.steps, "cores": os.cpu_count(), "run": f"runs/{mode}-{model}-{ranks}-{link}"}


def measure(options, links):
    """Yields a row for each run."""
    rows, alone = [], {}
    for run in planned(options, links):
        folder = options.out / run["run"]
        shutil.rmtree(folder, ignore_errors=True)
        begin = time.monotonic()
        # One rank has no link: it is measured once, and stands at the beginning of every curve.
        key = (run["model"], run["global_batch"])
        if run["ranks"] == 1 and key in alone:
            run["run"], (lines, size) = alone[key]
        else:
            folder.mkdir(parents=True)
            lines, size = run_one(options, run, folder)
            if run["ranks"] == 1:
                alone[key] = run["run"], (lines, size)
        run["step_ms"] = median_of(lines, "step_ms")
        run["samples_per_s"] = 1e3 * run["global_batch"] / run["step_ms"]
        for name in ("forward_ms", "backward_ms", "comm_ms", "comm_exposed_ms"):
            run[name] = median_of(lines, name)
        run["bytes_per_step"] = size
        first = next((row for row in rows if all(row[k] == run[k] for k in ("mode", "model", "link"))), run)
        run["efficiency"] = (run["samples_per_s"] / run["ranks"]) / (first["samples_per_s"] / first["ranks"])
        rows.append({name: round(value, 4) if isinstance(value, float) else value for name, value in run.items()})
        print(f"{run['mode']:6} {run['model']:9} {run['ranks']:3} ranks {run['link']:>9}: {run['samples_per_s']:9.1f} samples/s, "
              f"{run['step_ms']:8.2f} ms a step, {run['comm_exposed_ms']:7.2f} ms exposed, efficiency {run['efficiency']:.2f} "
              f"({time.monotonic() - begin:.0f} s)", flush=True)
        yield rows[-1]


def words(kind):
    def parse_words(text):
        try:
            return [kind(word) for word in text.split(",")]
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{text}': needs whole numbers with commas between them") from None
    return parse_words


def parse():
    parser = argparse.ArgumentParser(prog="cluster/scaling/run.sh", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=words(str), default=["resnet8", "mlp"], help="of train_classifier (resnet8,mlp)")
    parser.add_argument("--ranks", type=words(int), default=[1, 2, 4], help="numbers of ranks (1,2,4)")
    parser.add_argument("--links", type=words(str), default=["1gbit", "10gbit"],
                        help="rates as tc says them, or unshaped (1gbit,10gbit)")
    parser.add_argument("--modes", type=words(str), default=["weak", "strong"], help="weak, strong or both (weak,strong)")
    parser.add_argument("--steps", type=int, default=25, help="of each run (25)")
    parser.add_argument("--batch", type=int, help="samples of a rank (as the model needs)")
    parser.add_argument("--per-host", type=int, default=1, help="ranks on each host (1)")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build", help="where bin/ is (build)")
    parser.add_argument("--out", type=pathlib.Path, help="the folder for what is measured (BUILD/scaling)")
    parser.add_argument("train_flags", nargs="*", metavar="-- FLAG", help="more flags of train_classifier, after --")
    options = parser.parse_args()
    options.out = (options.out or options.build / "scaling").resolve()
    options.ranks = sorted(set(options.ranks))
    wrong = [mode for mode in options.modes if mode not in ("weak", "strong")]
    if wrong:
        parser.error(f"--modes {wrong[0]}: there are weak and strong")
    for flag, value, least in (("ranks", options.ranks[0], 1), ("steps", options.steps, 3),
                               ("per-host", options.per_host, 1), ("batch", options.batch, 1)):
        if value is not None and value < least:
            parser.error(f"--{flag} {value}: must be at least {least}")
    uneven = [ranks for ranks in options.ranks if ranks > options.per_host and ranks % options.per_host]
    if uneven:
        parser.error(f"--ranks {uneven[0]} does not fill hosts of {options.per_host} ranks")
    if not shutil.which("mpirun"):
        parser.error("mpirun is not installed: apt-get install openmpi-bin")
    for link in options.links:
        try:
            link == UNSHAPED or hosts.rate(link)
        except argparse.ArgumentTypeError as error:
            parser.error(f"--links: {error}, nor unshaped")
    for flag in options.train_flags:
        if flag.split("=")[0] in ("--model", "--data", "--global-batch", "--steps", "--epochs", "--metrics", "--trace"):
            parser.error(f"{flag} after --: this program says it to train_classifier by itself")
    for program in ("train_classifier", "trireme"):
        if not os.access(options.build / "bin" / program, os.X_OK):
            parser.error(f"{options.build}/bin/{program} is not built: cmake --build {options.build}")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out {options.out}: {error.strerror}; choose another folder")
    return options


def main():
    options = parse()
    hosts.stop_by_signals()
    refused = can_emulate() if options.ranks[-1] > 1 else None
    if refused:
        print(f"scaling.py: no emulated hosts here ({refused}); all ranks run on this host, over its loopback", flush=True)
    with contextlib.ExitStack() as opened:
        table = None
        for row in measure(options, [LOOPBACK] if refused else options.links):
            if not table:  # an older one stays until there is something new
                file = opened.enter_context(open(options.out / "scaling.csv", "w", newline="", encoding="utf-8"))
                table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                table.writeheader()
            table.writerow(row)
            file.flush()
    print(f"table: {options.out / 'scaling.csv'}", flush=True)
    return subprocess.run([str(options.build / "bin/trireme"), "report", str(options.out)]).returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
