#!/usr/bin/env python3
"""Checks that a change of the code changes no bit of any job, no checkpoint and no step time.

    tests/bench/compare_builds.py record BUILD FOLDER      before the change
    tests/bench/compare_builds.py check BUILD FOLDER       after it, on the same machine
    tests/bench/compare_builds.py time OLD_BUILD NEW_BUILD [--pairs 20]

`record` runs every job of JOBS with the programs in BUILD/bin, and keeps the digests of all steps and one
checkpoint of each job in FOLDER, which must not exist. `check` runs the jobs again, compares every digest, and
lets the new programs go on from the recorded checkpoints. `time` alternates both builds and compares the
median step time of each model; the ratio must be within 0.95 and 1.05.

Exit code 0: nothing differs. 1: something differs; each difference is one line.
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

# Everything that draws random numbers or looks at the whole batch is on.
IMAGES = ["--data", "synthetic:1,16,16,10,960", "--global-batch", "64", "--augment", "on", "--dropout", "0.2"]
TEXT = ["--global-batch", "8", "--dropout", "0.1", "--model", "gpt:layers=2,width=32,heads=2,context=32"]
GNMT = ["--data", "reversal:20,8,80", "--model", "gnmt:2,16", "--global-batch", "16", "--dropout", "0.1"]
NCF = ["--data", "synthetic:40,120", "--global-batch", "64"]
TREES = ["--data", "synthetic:6", "--global-batch", "16", "--clip-norm", "1"]
GAN = ["--data", "synthetic:1,28,28,10,64", "--global-batch", "16"]

# name: (program, ranks, flags). All jobs have 4 shards, so that jobs that differ in ranks alone agree.
JOBS = {
    "mlp": ("train_classifier", 1, [*IMAGES, "--model", "mlp"]),
    "mlp-2": ("train_classifier", 2, [*IMAGES, "--model", "mlp"]),
    "mlp-4": ("train_classifier", 4, [*IMAGES, "--model", "mlp"]),
    "lenet-adamw": ("train_classifier", 2, [*IMAGES, "--model", "lenet", "--optimizer", "adamw", "--lr", "0.001"]),
    "lenet-lamb": ("train_classifier", 2, [*IMAGES, "--model", "lenet", "--optimizer", "lamb", "--lr", "0.01"]),
    "lenet-lars": ("train_classifier", 2, [*IMAGES, "--model", "lenet", "--optimizer", "lars"]),
    "resnet8": ("train_classifier", 1, [*IMAGES, "--model", "resnet8"]),
    "resnet8-4": ("train_classifier", 4, [*IMAGES, "--model", "resnet8", "--clip-norm", "1"]),
    "resnet8-zero": ("train_classifier", 3, [*IMAGES, "--model", "resnet8", "--zero", "1", "--bucket-mb", "0.1"]),
    "resnet8-adamw-zero": ("train_classifier", 4, [*IMAGES, "--model", "resnet8", "--optimizer", "adamw",
                                                   "--lr", "0.001", "--zero", "1"]),
    "resnet8-sync": ("train_classifier", 4, [*IMAGES, "--model", "resnet8", "--sync-batchnorm", "on"]),
    "resnet8-fp16": ("train_classifier", 2, [*IMAGES, "--model", "resnet8", "--comm-hook", "fp16"]),
    "resnet8-bf16": ("train_classifier", 2, [*IMAGES, "--model", "resnet8", "--comm-hook", "bf16"]),
    "resnet8-powersgd": ("train_classifier", 2, [*IMAGES, "--model", "resnet8", "--comm-hook", "powersgd"]),
    "resnet8-no-overlap": ("train_classifier", 2, [*IMAGES, "--model", "resnet8", "--overlap", "off"]),
    "resnet8-bfloat16": ("train_classifier", 2, [*IMAGES, "--model", "resnet8", "--dtype", "bfloat16"]),
    "resnet8-fastest": ("train_classifier", 2, [*IMAGES, "--model", "resnet8", "--reduction", "fastest"]),
    "resnet8-replay": ("train_classifier", 1, [*IMAGES, "--model", "resnet8", "--replay-ranks", "4"]),
    "resnet8-cosine": ("train_classifier", 2, [*IMAGES, "--model", "resnet8", "--schedule", "cosine",
                                               "--warmup-steps", "2", "--label-smoothing", "0.1"]),
    "mobilenet": ("train_classifier", 2, ["--data", "synthetic:3,32,32,10,64", "--global-batch", "16",
                                          "--model", "mobilenet"]),
    "vit": ("train_classifier", 2, ["--data", "synthetic:3,32,32,10,64", "--global-batch", "16", "--model", "vit",
                                    "--optimizer", "adamw", "--lr", "0.001"]),
    "gpt": ("train_gpt", 1, TEXT),
    "gpt-4-zero": ("train_gpt", 4, [*TEXT, "--zero", "1"]),
    "gpt-bfloat16": ("train_gpt", 2, [*TEXT, "--dtype", "bfloat16"]),
    "gnmt": ("train_gnmt", 2, GNMT),
    "ncf": ("train_ncf", 2, NCF),
    "trees": ("train_trees", 2, TREES),
    "gan": ("train_gan", 2, GAN),
    "first_program": ("first_program", 2, []),
    "user_hook": ("user_hook", 2, ["--global-batch", "64"]),
    "user_op": ("user_op", 2, ["--global-batch", "64"]),
}
STEPS, SAVED_AT = 6, 3
TIMED = {
    "lenet": ("train_classifier", 1, ["--model", "lenet", "--data", "synthetic:1,28,28,10,9600"]),
    "resnet8-2": ("train_classifier", 2, ["--model", "resnet8", "--data", "synthetic:1,28,28,10,9600"]),
    "gpt-2": ("train_gpt", 2, TEXT),
}


def command(build, job, more):
    program, ranks, flags = job
    launcher = [build / "bin/trireme", "launch", "-n", str(ranks), "--"] if ranks > 1 else []
    return [*map(str, launcher), str(build / "bin" / program), *flags, "--shards", "4", *map(str, more)]


def run(build, job, more):
    """Runs a job to its end and returns its standard output. Ends this program if the job fails."""
    arguments = command(build, job, more)
    ended = subprocess.run(arguments, capture_output=True, text=True, timeout=600, cwd=SOURCE)
    if ended.returncode != 0:
        sys.exit(f"{' '.join(arguments)}: exit code {ended.returncode}\n{ended.stderr}")
    return ended.stdout


def digests(output):
    return dict(re.findall(r"^digest step=(\d+) sha256=([0-9a-f]{64})$", output, re.M))


def trained(build, job, checkpoints):
    """Trains SAVED_AT steps, keeps the checkpoint, and goes on to STEPS. Returns step -> digest."""
    flags = ["--digest-every", 1, "--checkpoint-dir", checkpoints, "--checkpoint-every", SAVED_AT,
             "--keep-checkpoints", STEPS]
    return digests(run(build, job, ["--steps", STEPS, *flags]))


def record(build, folder):
    folder.mkdir(parents=True)
    found = {}
    for name, job in JOBS.items():
        found[name] = trained(build, job, folder / name)
        if len(found[name]) != STEPS:
            sys.exit(f"{name}: {len(found[name])} digests, expected {STEPS}")
        # Later runs go on from the checkpoint in the middle.
        for checkpoint in (folder / name).glob("step-*"):
            if checkpoint.name != f"step-{SAVED_AT:08}":
                shutil.rmtree(checkpoint)
        print(name, found[name][str(STEPS)][:16], flush=True)
    (folder / "digests.json").write_text(json.dumps(found, indent=1))
    return 0


def check(build, folder):
    recorded = json.loads((folder / "digests.json").read_text())
    wrong = 0
    for name, job in JOBS.items():
        with tempfile.TemporaryDirectory() as scratch:
            scratch = pathlib.Path(scratch)
            now = trained(build, job, scratch / "new")
            shutil.copytree(folder / name, scratch / "old")
            resumed = digests(run(build, job, ["--steps", STEPS, "--digest-every", 1, "--checkpoint-dir",
                                               scratch / "old"]))
        for what, found, first in (("run", now, 1), ("resumed", resumed, SAVED_AT + 1)):
            expected = {step: digest for step, digest in recorded[name].items() if int(step) >= first}
            differing = [step for step in expected if found.get(step) != expected[step]]
            if differing:
                wrong += 1
                print(f"{name}: {what}: the digest of step {differing[0]} is {found.get(differing[0])}, "
                      f"recorded is {expected[differing[0]]}", flush=True)
    print(f"{len(JOBS)} jobs, {wrong} differences")
    return 1 if wrong else 0


def step_ms(build, job):
    with tempfile.TemporaryDirectory() as scratch:
        metrics = pathlib.Path(scratch) / "metrics.jsonl"
        run(build, job, ["--steps", 40, "--eval-every", 0, "--metrics", metrics])
        lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    return statistics.median(line["step_ms"] for line in lines[5:])


def time_both(old, new, pairs):
    wrong = 0
    for name, job in TIMED.items():
        ratios = []
        for i in range(pairs):
            first, second = (old, new) if i % 2 == 0 else (new, old)
            times = {first: step_ms(first, job), second: step_ms(second, job)}
            ratios.append(times[new] / times[old])
        middle, quarters = statistics.median(ratios), statistics.quantiles(ratios, n=4)
        wrong += not 0.95 <= middle <= 1.05
        print(f"{name}: new / old = {middle:.3f} (middle half {quarters[0]:.3f} to {quarters[2]:.3f})", flush=True)
    return 1 if wrong else 0


SOURCE = pathlib.Path(__file__).resolve().parents[2]
os.environ.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMPI_MCA_mpi_yield_when_idle="1")
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("what", choices=["record", "check", "time"])
parser.add_argument("build", type=lambda text: pathlib.Path(text).resolve(), help="build folder")
parser.add_argument("other", type=lambda text: pathlib.Path(text).resolve(), help="FOLDER, or NEW_BUILD of `time`")
parser.add_argument("--pairs", type=int, default=20, help="alternations of `time`, at least 2")
args = parser.parse_args()
if args.what == "time":
    sys.exit(time_both(args.build, args.other, args.pairs))
sys.exit((record if args.what == "record" else check)(args.build, args.other))
