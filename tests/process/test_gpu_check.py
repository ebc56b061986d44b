#!/usr/bin/env python3
"""Rehearses tests/gpu/check.sh without a GPU: its programs use the emulated one, and nvidia-smi is a fake.

    test_gpu_check.py SOURCE BUILD [names of tests]

The emulated NCCL joins threads only, so what needs two processes fails here, at the deadline of its patience.
ncu and compute-sanitizer are fakes that start their program.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time

import training

SOURCE = pathlib.Path(sys.argv[1]).resolve()
TESTS = training.BUILD / "tests"
EMULATED = {
    "gpu_ops": TESTS / "unit_cuda_ops",
    "gpu_sizes": TESTS / "unit_cuda_sizes",
    "gpu_low_precision": TESTS / "unit_cuda_low_precision",
    "gpu_cross_entropy": TESTS / "unit_cuda_cross_entropy",
    "gpu_collectives": TESTS / "unit_cuda_collectives",
    "bench_steps": TESTS / "emulated" / "bench_steps",
    "train_gpt": TESTS / "emulated" / "train_gpt",
    "train_classifier": TESTS / "emulated" / "train_classifier",
    "trireme": training.BUILD / "bin" / "trireme",
}
INHERITED = "/inherited/libraries"
NVIDIA_SMI = """#!/bin/sh
case "$*" in
  -L) echo "GPU 0: NVIDIA Emulated" ;;
  *name*) echo "NVIDIA Emulated, 1.0" ;;
  *) echo "the table of nvidia-smi" ;;
esac
"""
NCU = """#!/bin/sh
echo "==PROF== the arguments are $*" >&2
while [ "${1#-}" != "$1" ]; do
  case $1 in --csv) shift ;; *) shift 2 ;; esac
done
"$@" || exit
echo '"ID","Kernel Name","gpu__time_duration.sum"'
echo '"0","add","1.5"'
"""
SANITIZER = """#!/bin/sh
echo "the libraries are searched for in $LD_LIBRARY_PATH"
shift 2
exec "$@"
"""
# What runs in seconds on an emulated GPU.
SMALL = {
    "CHECK_ITERATIONS": "2",
    "CHECK_IMAGES": "gpt",
    "CHECK_GPT_SIZE": "gpt:layers=1,width=16,heads=2,context=4",
    "CHECK_LARGE_BATCH": "9",
    "CHECK_GPT_JOB": "--model gpt:layers=1,width=16,heads=2,context=8 --data text:data.txt --global-batch 8 "
    "--dtype bfloat16 --dropout 0.1 --steps 3",
    "CHECK_RESNET_JOB": "--model lenet --data synthetic:1,28,28,10,32 --global-batch 8 --augment on "
    "--steps 3",
    "CHECK_PATIENCE": "2",
    "CHECK_FILTER": "CudaCrossEntropy.OfExtremeLogits:CudaSizes.Random*:CudaLowPrecision.Gradients*",
}


def write_program(path, text):
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(0o755)


class Rehearsal(training.Training):
    def setUp(self):
        super().setUp()
        self.tree, self.bin = self.dir / "tree", self.dir / "bin"
        for folder in ("gpu", "bench"):
            shutil.copytree(SOURCE / "tests" / folder, self.tree / "tests" / folder)
        (self.tree / "data.txt").write_text("to be or not to be, that is the question. " * 8)
        (self.tree / "README.md").write_text("a text to train on, long enough for a window of it. " * 60)
        self.bin.mkdir()
        for name, text in (("nvidia-smi", NVIDIA_SMI), ("ncu", NCU), ("compute-sanitizer", SANITIZER)):
            write_program(self.bin / name, text)
        # Without PyTorch, wherever the test runs.
        write_program(self.bin / "python3", f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
        self.pack_programs()

    def pack_programs(self, **others):
        """Makes a pack of links to the emulated programs. others: NAME=the text of a script instead."""
        root = self.dir / "gpu-pack"
        shutil.rmtree(root, ignore_errors=True)
        for folder in ("bin", "lib", "openmpi", "pmix"):
            (root / folder).mkdir(parents=True)
        for name, program in EMULATED.items():
            (root / "bin" / name).symlink_to(program)
        for name, text in others.items():
            write_program(root / "bin" / name, text)
        system = next(pathlib.Path("/usr/lib").glob("*/openmpi"), pathlib.Path("/none/openmpi")).parent
        for name, target in {
            "openmpi/lib": system / "openmpi/lib/openmpi3",
            "openmpi/share": "/usr/share/openmpi",
            "openmpi/etc": "/etc/openmpi",
            "pmix/lib": system / "pmix2/lib/pmix",
            "pmix/share": "/usr/share/pmix2",
        }.items():
            (root / name).symlink_to(target)
        (root / "commit").write_text("0123abc\n")
        (self.tree / "build").mkdir(exist_ok=True)
        with tarfile.open(self.tree / "build" / "gpu-pack.tar.xz", "w:xz") as pack:
            pack.add(root, "gpu-pack")

    def start(self, *arguments, path=None, **variables):
        """Starts check.sh. Its results go to self.results."""
        self.results = self.dir / f"results{self.runs}"
        self.runs += 1
        env = dict(
            training.environment(),
            **SMALL,
            OUT=str(self.results),
            LD_LIBRARY_PATH=INHERITED,
            PATH=path or f"{self.bin}:/usr/local/bin:/usr/bin:/bin",
            OMP_NUM_THREADS="1",
        )
        env.update(variables)
        return subprocess.Popen(
            [self.tree / "tests/gpu/check.sh", *arguments],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )

    def check(self, code, *arguments, seconds=80, **where):
        """Runs check.sh to its end and returns its standard output and standard error."""
        process = self.start(*arguments, **where)
        out, err = process.communicate(timeout=seconds)
        self.assertEqual(process.returncode, code, f"{arguments}\n{out}\n{err}\n{self.log()}")
        return out, err

    def log(self):
        try:
            return (self.results / "log.txt").read_text(errors="replace")
        except OSError:
            return "there is no log"

    def report(self):
        return json.loads((self.results / "check.json").read_text())

    def archived(self):
        """name -> text of the files in all.tgz"""
        with tarfile.open(self.results / "all.tgz") as archive:
            return {
                os.path.basename(member.name): archive.extractfile(member).read().decode(errors="replace")
                for member in archive.getmembers()
                if member.isfile()
            }

    def wait_for_log(self, pattern, seconds=40):
        end = time.monotonic() + seconds
        while not re.search(pattern, self.log()):
            self.assertLess(time.monotonic(), end, f"the log does not say {pattern}: {self.log()}")
            time.sleep(0.05)

    def lists(self):
        out = subprocess.run(
            [self.tree / "tests/gpu/check.sh", "--list"], capture_output=True, text=True, check=True
        ).stdout
        return {
            group: [
                (line.split()[1], int(line.split()[2])) for line in out.splitlines() if line.startswith(group)
            ]
            for group in ("first", "second")
        }

    def test_all_checks_in_order(self):
        out, _ = self.check(1)
        log, report, archived = self.log(), self.report(), self.archived()
        names = list(dict.fromkeys(name for group in self.lists().values() for name, _ in group))
        self.assertEqual(re.findall(r"^=== (\w+): at most", log, re.M), names)
        self.assertEqual(list(report["checks"]), names)
        self.assertEqual(re.findall(r"^=== (\w+): (?:exit|not run)", out, re.M), names)
        exits = {name: check["exit"] for name, check in report["checks"].items()}
        self.assertEqual(
            [name for name in names if exits[name] not in (0, None)],
            ["digests_gpt", "digests_resnet", "collectives"],
            log,
        )  # two processes share no emulated GPU
        self.assertEqual(
            [name for name in names if exits[name] is None], ["pytorch_gpt", "speed_resnet50", "speed_gpt"]
        )
        self.assertEqual(report["checks"]["speed_gpt"]["last_line"], "not run: PyTorch is not installed")
        self.assertEqual(
            (report["failed"], report["device"], report["commit"]), (1, "NVIDIA Emulated, 1.0", "0123abc")
        )

        # What the checks found, each in its own output.
        for name, pattern in {
            "facts": "the table of nvidia-smi",
            "unpack": "packed from commit 0123abc",
            "gpu": r"PASSED.*1 test",
            "gpt": r"steps/gpt/iterations:2",
            "gpt_graph": r"bench_steps cuda bfloat16 .* graph\n(.*\n)*steps/gpt",
            "gpt_padded": "--vocabulary 50304",
            "gpt_batch_64": "--batch 9",
            "profile_gpt": "1 kernels were profiled",
            "sizes": "CudaSizes.RandomNumbersAreThoseOfTheCpu",
            "sanitizer_sizes": "CudaSizes.RandomNumbersAreThoseOfTheCpu",
            "digests_gpt": r"digests: alone (\w{8}) graph \1 replay \1 two_ranks ;",
            "digests_resnet": r"digests: alone (\w{8}) graph \1 replay \1 two_ranks ;",
        }.items():
            self.assertRegex(archived[f"{name}.txt"], pattern)
            self.assertIn(archived[f"{name}.txt"], log)
        # Standard error: of a tool that succeeds, and of ranks that fail.
        self.assertIn("==PROF== the arguments are --clock-control none", archived["profile_gpt.txt"])
        self.assertRegex(archived["digests_gpt.txt"], "(?i)rank . .*nccl.*2 s|patience")
        # The inherited path is kept, after the pack's libraries and before the usual places of the driver.
        self.assertRegex(
            archived["sanitizer_sizes.txt"],
            "searched for in [^ ]*/build/gpu-pack/lib:([^ ]*:)?"
            f"{INHERITED}:/usr/local/nvidia/lib64:/usr/local/nvidia/lib\n",
        )
        self.assertEqual(json.loads(archived["check.json"]), report)
        self.assertTrue(log.startswith(archived["log.txt"]))
        self.assertEqual(sorted(os.listdir(self.results)), ["all.tgz", "check.json", "log.txt"])

    def test_groups_and_limits(self):
        lists = self.lists()
        for group in lists.values():
            self.assertLessEqual(sum(seconds for _, seconds in group), 300)
            self.assertEqual([name for name, _ in group[:3]], ["facts", "unpack", "gpu"])
        functions = re.findall(r"^check_(\w+)\(\)", (SOURCE / "tests/gpu/check.sh").read_text(), re.M)
        self.assertEqual({name for group in lists.values() for name, _ in group}, set(functions))

    def test_a_killed_run_keeps_what_it_found(self):
        self.pack_programs(bench_steps="#!/bin/sh\necho a step took 7 ms\nexec sleep 60\n")
        process = self.start("--first")
        self.wait_for_log("\n=== gpt: at most")
        self.wait_for_log("\na step took 7 ms", seconds=8)  # before the check ends
        process.kill()
        process.communicate()
        for pid in training.survivors():
            os.kill(pid, signal.SIGKILL)
        archived = self.archived()
        self.assertIn("[  PASSED  ]", archived["low_precision.txt"])
        self.assertIn(archived["low_precision.txt"], self.log())
        self.assertNotIn("gpt.txt", archived)
        self.assertEqual(list(self.report()["checks"]), ["facts", "unpack", "gpu", "low_precision"])
        self.assertTrue(self.log().rstrip().endswith("a step took 7 ms"), self.log())

    def test_a_signal_stops_the_program_that_runs(self):
        self.pack_programs(gpu_ops="#!/bin/sh\necho begun\nsleep 60\n")
        process = self.start("--only", "ops")
        self.wait_for_log("\nbegun")
        process.terminate()
        process.communicate(timeout=10)
        self.assertEqual(process.returncode, 1)
        self.assertIn("stopped by a signal", self.log())

    def test_stops_at_once_where_our_programs_see_no_gpu(self):
        self.pack_programs()
        pack = self.dir / "gpu-pack" / "bin"
        for name, program in (
            ("gpu_sizes", TESTS / "gpu_sizes"),
            ("train_gpt", training.BUILD / "bin" / "train_gpt"),
        ):
            (pack / name).unlink()
            (pack / name).symlink_to(program)
        with tarfile.open(self.tree / "build" / "gpu-pack.tar.xz", "w:xz") as file:
            file.add(self.dir / "gpu-pack", "gpu-pack")
        begin = time.monotonic()
        out, _ = self.check(1, CUDA_VISIBLE_DEVICES="")
        self.assertLess(time.monotonic() - begin, 10)
        self.assertRegex(
            out,
            r"stopped: our programs see no GPU: device cuda: this machine has no usable NVIDIA GPU \(.*\)",
        )
        self.assertEqual(list(self.report()["checks"]), ["facts", "unpack", "gpu"])
        self.assertRegex(self.archived()["gpu.txt"], r"libc\.so.* => /")  # by ldd

    def test_stops_where_a_library_is_missing(self):
        self.pack_programs(
            gpu_low_precision="#!/bin/sh\necho 'device cuda: cannot load libcublasLt.so.13' >&2\nexit 1\n"
        )
        out, _ = self.check(1, "--first")
        self.assertIn("stopped: a library of CUDA cannot be used", out)
        self.assertEqual(list(self.report()["checks"])[-1], "low_precision")

    def test_one_check_and_time_limits(self):
        self.check(0, "--only", "cross_entropy")
        self.assertEqual(list(self.report()["checks"]), ["unpack", "cross_entropy"])
        self.assertRegex(self.log(), r"CudaCrossEntropy.OfExtremeLogits")
        # One that ends when it is asked to, and one that does not.
        self.pack_programs(
            gpu_ops="#!/bin/sh\necho begun\nexec sleep 60\n",
            gpu_cross_entropy="#!/bin/sh\ntrap '' TERM\necho begun\nwhile :; do sleep 0.1; done\n",
        )
        begin = time.monotonic()
        out, _ = self.check(1, "--only", "ops", "--only", "cross_entropy", CHECK_LIMIT="2")
        self.assertLess(time.monotonic() - begin, 20)
        checks = self.report()["checks"]
        self.assertEqual((checks["ops"]["exit"], checks["cross_entropy"]["exit"]), (124, 137))
        for name in ("ops", "cross_entropy"):
            self.assertRegex(
                out, f"=== {name}: exit 1.. after [2-6] s: cut at its time limit; its last line: begun"
            )

    def test_the_whole_run_has_a_deadline(self):
        self.pack_programs(
            gpu_low_precision="#!/bin/sh\nexec sleep 60\n", bench_steps="#!/bin/sh\nexec sleep 60\n"
        )
        begin = time.monotonic()
        self.check(1, "--first", CHECK_SECONDS="10")
        self.assertLess(time.monotonic() - begin, 20)
        checks = self.report()["checks"]
        self.assertEqual([name for name, _ in self.lists()["first"]], list(checks))
        self.assertEqual((checks["gpu"]["exit"], checks["low_precision"]["exit"]), (0, 124))
        self.assertEqual(
            {
                check["last_line"]
                for name, check in checks.items()
                if name not in ("facts", "unpack", "gpu", "low_precision")
            },
            {"cut at its time limit; its last line: not started: no time was left"},
        )

    def test_digests_that_differ_and_programs_that_fail(self):
        """Four runs with one digest pass, but not if one differs, is missing, or its program fails."""
        same = "#!/bin/sh\necho digest step=3 sha256=0123456789\n"
        launch = '#!/bin/sh\nshift 4\nexec "$@"\n'
        for program, code in (
            (same, 0),
            (same + 'case "$*" in *replay*) exit 6 ;; esac\n', 1),
            ('#!/bin/sh\ncase "$*" in *share*) n=8 ;; esac\necho digest step=3 sha256=012345678${n:-9}\n', 1),
            ("#!/bin/sh\necho there is none\n", 1),
        ):
            self.pack_programs(train_gpt=program, trireme=launch)
            self.check(code, "--only", "digests_gpt")
            self.assertEqual(self.report()["checks"]["digests_gpt"]["exit"], code, program)

    def test_exit_codes_and_messages(self):
        for arguments in (["--third"], ["--only"], ["--only", "nothing"], ["gpt"]):
            out, err = self.check(2, *arguments)
            self.assertEqual((out, len(err.splitlines())), ("", 1), err)
            self.assertIn(arguments[-1], err)
        write_program(self.bin / "nvidia-smi", "#!/bin/sh\necho no driver >&2\nexit 9\n")
        self.assertEqual(self.check(77), ("skipped: nvidia-smi finds no NVIDIA GPU in this machine\n", ""))

    def test_without_xz_and_without_a_pack(self):
        """Unpacks by Python; and where neither a pack nor a compiler is, says so in one line."""
        for tool in pathlib.Path("/usr/bin").iterdir():
            if tool.name not in ("xz", "cmake", "python3") and not (self.bin / tool.name).exists():
                (self.bin / tool.name).symlink_to(tool)
        self.check(0, "--only", "cross_entropy", path=str(self.bin))
        self.assertIn("+ python3 -c import tarfile", self.log())
        (self.tree / "build" / "gpu-pack.tar.xz").unlink()
        out, err = self.check(1, path=str(self.bin))
        self.assertRegex(
            err,
            r"\Atests/gpu/check.sh: there is no build/gpu-pack.tar.xz, and a build here lacks cmake.*"
            r"tests/gpu/pack.sh.*\n\Z",
        )
        self.assertEqual(out, "")

    def test_steps_go_on_after_a_setting_fails(self):
        wrapper = self.dir / "ours"
        write_program(
            wrapper,
            f"""#!/bin/sh
case "$*" in *" graph") echo "device cuda: the capture was invalidated" >&2; exit 3 ;; esac
exec {EMULATED["bench_steps"]} --gpt {SMALL["CHECK_GPT_SIZE"]} --vocabulary 50 "$@"
""",
        )
        figures = self.dir / "speed.json"
        ended = subprocess.run(
            [
                sys.executable,
                SOURCE / "tests/bench/steps.py",
                wrapper,
                "--device",
                "cuda",
                "--dtype",
                "bfloat16",
                "--iterations",
                "2",
                "--only",
                "ours",
                "--models",
                "gpt",
                "--json",
                figures,
            ],
            env=training.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(ended.returncode, 1, ended)
        self.assertRegex(
            ended.stdout,
            r"gpt, ours \(eager\): [0-9.]+ ms\n"
            r"gpt, ours \(graph\): failed: exit code 3: device cuda: the capture was invalidated\n\Z",
        )
        self.assertIn("device cuda: the capture was invalidated", ended.stderr)
        self.assertEqual(list(json.loads(figures.read_text())["steps"]["gpt"]["ours_ms"]), ["eager"])


if __name__ == "__main__":
    missing = [str(program) for program in [*EMULATED.values(), TESTS / "gpu_sizes"] if not program.exists()]
    if missing:
        print(f"skipped: {missing[0]} is not built")
        sys.exit(77)
    training.main()
