"""For tests that train in processes: start train_classifier on any ranks, kill it, read what it leaves.

    import training; training.main(...)    in a script that is given the source and the build folders
"""
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

BUILD = pathlib.Path(sys.argv[2]).resolve()
TRIREME = str(BUILD / "bin" / "trireme")
TRAIN = str(BUILD / "bin" / "train_classifier")
FASHION_MNIST = "/usr/share/datasets/fashion-mnist"
LONG = os.environ.get("TRIREME_LONG") == "1"
MPIRUN = os.environ.get("TRIREME_MPIRUN", "mpirun")
MARKER = f"TEST_MARKER={os.getpid()}-{random.getrandbits(40)}"
SECONDS = 120  # a run that takes longer hangs

# What a step's line of metrics says about time differs from run to run, and nothing else may.
TIMES = re.compile(r"samples_per_s|.*_ms|world_size")


def environment(more=None):
    """The environment of everything that a test starts, with the variables in `more` besides."""
    variable, value = MARKER.split("=")
    env = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
               OMPI_MCA_mpi_yield_when_idle="1", TRIREME_BACKTRACE="1")
    for name in list(env):
        if name.startswith("SLURM_"):
            del env[name]
    env[variable] = value
    env.update(more or {})
    return env


def survivors():
    """Ids of the processes that a test has started, in whatever way they came to be."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if MARKER.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            pass
    return found


def rank_processes():
    """rank -> process id of the running train_classifier processes."""
    found = {}
    for pid in survivors():
        try:
            if os.path.basename(os.readlink(f"/proc/{pid}/exe")) != "train_classifier":
                continue
            env = pathlib.Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        rank = re.search(rb"\0OMPI_COMM_WORLD_RANK=(\d+)\0", env)
        found[int(rank[1]) if rank else 0] = pid
    return found


def command(arguments, ranks=1, how="launch", flags=(), program=TRAIN):
    """how: launch (processes), threads (of one process), mpirun, or plain (no launcher). flags: of the launcher."""
    program = [str(program), *map(str, arguments)]
    if how == "plain":
        return program
    if how == "mpirun":
        return [MPIRUN, "-np", str(ranks), "--oversubscribe", *program]
    local = ["--backend", "local"] if how == "threads" else []
    return [TRIREME, "launch", "-n", str(ranks), *local, *map(str, flags), "--", *program]


class Ended:
    """What a run has said, once it is over."""

    def __init__(self, code, out, err, by_mpirun=False):
        self.by_mpirun = by_mpirun
        self.code, self.out, self.err = code, out, err
        self.digests = dict(re.findall(r"^digest step=(\d+) sha256=([0-9a-f]{64})$", out, re.M))
        self.digest = list(self.digests.values())[-1] if self.digests else None
        # Without what mpirun says itself: messages framed by dashes, and lines that tell its host and process.
        self.ours = re.sub(r"^-{20,}\n(.|\n)*?^-{20,}\n|^\[\S+:\d+\] .*\n", "", err, flags=re.M)

    def __str__(self):
        return f"exit code {self.code}\nstdout: {self.out}\nstderr: {self.err}"


class Run:
    """A run in the background. Its output goes to files, so that nothing it does can block on a pipe."""

    def __init__(self, folder, arguments, env=None, **where):
        self.folder = pathlib.Path(folder)
        with open(self.folder / "out", "wb") as out, open(self.folder / "err", "wb") as err:
            self.process = subprocess.Popen(command(arguments, **where), stdin=subprocess.DEVNULL, stdout=out,
                                            stderr=err, env=environment(env))

    def running(self):
        return self.process.poll() is None

    def wait(self, seconds=SECONDS):
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            said = Ended("none", self.out(), self.err())
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"{self.process.args}\nstill runs after {seconds} s\n{said}") from None
        return Ended(self.process.returncode, self.out(), self.err(), self.process.args[0] == MPIRUN)

    def out(self):
        return (self.folder / "out").read_text(errors="replace")

    def err(self):
        return (self.folder / "err").read_text(errors="replace")


def read_metrics(path):
    return [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]


def without_times(metrics):
    return [{key: value for key, value in line.items() if not TIMES.fullmatch(key)} for line in metrics]


class Training(unittest.TestCase):
    """Each test has a folder of its own, self.dir, and leaves no process."""
    maxDiff = None

    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="trireme-test-"))
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        self.addCleanup(self.nobody_left)
        self.runs = 0

    def nobody_left(self, seconds=10):
        end = time.monotonic() + seconds
        while survivors() and time.monotonic() < end:
            time.sleep(0.1)
        left = survivors()
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        self.assertEqual(left, [], "processes are left")

    def start(self, arguments, **where):
        self.runs += 1
        folder = self.dir / f"run{self.runs}"
        folder.mkdir()
        return Run(folder, arguments, **where)

    def run_to_end(self, arguments, code=0, seconds=SECONDS, env=None, **where):
        ended = self.start(arguments, env=env, **where).wait(seconds)
        self.assertEqual(ended.code, code, f"{command(arguments, **where)}\n{ended}")
        return ended

    def assert_one_line(self, ended, pattern):
        """Standard error is one line, and says this."""
        lines = (ended.ours if ended.by_mpirun else ended.err).splitlines()
        self.assertEqual(len(lines), 1, f"not one line on standard error: {ended}")
        self.assertRegex(lines[0], pattern)


def main():
    for program in (TRAIN, TRIREME):
        if not os.access(program, os.X_OK):
            print(f"skipped: {program} is not built")
            sys.exit(77)
    # What follows the two folders goes to unittest: names of tests, -v, ...
    unittest.main(module="__main__", argv=[sys.argv[0], *sys.argv[3:]], verbosity=2)
