#!/usr/bin/env python3
"""Whatever is wrong with what a job is given: one line that says what, where and what to do, the right exit code, in
time, on any number of ranks; and what was there before is still there.

    test_bad_input.py SOURCE BUILD [names of tests]
"""
import gzip
import os
import re
import shutil
import struct
import subprocess
import time

import training

PLACES = (dict(how="plain"), dict(ranks=1), dict(ranks=2), dict(ranks=2, how="mpirun"), dict(ranks=2, how="threads"))
JOB = ["--model", "lenet", "--global-batch", 16, "--shards", 4, "--steps", 8]
SYNTHETIC = ["--data", "synthetic:1,28,28,10,64"]


class BadInput(training.Training):
    def refused(self, code, flags, *patterns, places=PLACES, seconds=30):
        for where in places:
            with self.subTest(flags=" ".join(map(str, flags)), **where):
                begin = time.monotonic()
                ended = self.run_to_end([*JOB, *flags], code=code, **where)
                self.assertLess(time.monotonic() - begin, seconds)
                for pattern in patterns:
                    self.assert_one_line(ended, pattern)
                self.assertNotRegex(ended.ours, "terminate|abort|core dumped|unexpected error")
                self.assertNotIn("test accuracy", ended.out)

    # Ranks that differ

    def started_apart(self, *ranks):
        """One rank for each command, all of one job."""
        command = [training.MPIRUN, "--oversubscribe"]
        for rank in ranks:
            command += ["-np", "1", *map(str, rank), ":"]
        begin = time.monotonic()
        ran = subprocess.run(command[:-1], env=training.environment(), capture_output=True, text=True, timeout=60)
        self.assertLess(time.monotonic() - begin, 10)
        self.assertEqual(ran.returncode, 2, ran)
        ended = training.Ended(ran.returncode, ran.stdout, ran.stderr, True)
        self.assertNotIn("step", ended.out)
        return ended

    def test_ranks_with_other_flags(self):
        same = [training.TRAIN, *JOB, *SYNTHETIC]
        self.assert_one_line(self.started_apart(same, [*same, "--lr", 0.2], same),
                             "rank 1: flags and program are not those of rank 0: lr 0.2, there 0.1; start all ranks with")
        self.assert_one_line(self.started_apart([*same, "--seed", 1], [*same, "--seed", 1], [*same, "--seed", 2]),
                             "rank 2: .*seed 2, there 1")

    def test_ranks_of_other_programs(self):
        other = str(training.BUILD / "bin" / "first_program")
        flags = ["--global-batch", 16, "--shards", 4, "--steps", 8, *SYNTHETIC]
        self.assert_one_line(self.started_apart([other, *flags], [training.TRAIN, *flags]),
                             "rank 1: flags and program are not those of rank 0: program [0-9a-f]+, there [0-9a-f]+")

    def test_each_rank_a_job_of_its_own(self):
        self.refused(2, [*SYNTHETIC, "--backend", "local"], "--backend local: .* started 2 ranks",
                     places=[dict(ranks=2, how="mpirun")])

    # The environment

    def test_ranks_of_launchers_that_cannot_be_joined(self):
        for env in ({"PMI_RANK": "1", "PMI_SIZE": "2"}, {"RANK": "0", "WORLD_SIZE": "2"},
                    {"FLUX_TASK_RANK": "0", "FLUX_JOB_SIZE": "2"}):
            with self.subTest(env=env):
                ended = self.run_to_end([*JOB, *SYNTHETIC, "--out", self.dir / "out"], code=2, how="plain", env=env)
                self.assert_one_line(ended, f"{next(iter(env))}=.* start with Open MPI's mpirun")
                self.assertFalse((self.dir / "out").exists(), "each of them would have written there")
        for env in ({"PMI_RANK": "0", "PMI_SIZE": "1"}, {"RANK": "0", "WORLD_SIZE": "1"}, {"FLUX_TASK_RANK": "0"}):
            self.run_to_end([*JOB, *SYNTHETIC, "--quiet"], how="plain", env=env)
        # mpirun's ranks are joined, whatever the machine's environment says besides.
        self.run_to_end([*JOB, *SYNTHETIC, "--quiet"], how="mpirun", ranks=2, env={"RANK": "0", "WORLD_SIZE": "8"})

    def test_a_shell_of_one_slurm_task(self):
        """As `srun --pty bash` gives it where Slurm has no MPI plugin: MPI would refuse to start."""
        shell = dict(SLURM_JOB_ID="5", SLURM_JOBID="5", SLURM_STEP_ID="0", SLURM_STEPID="0", SLURM_PROCID="0", SLURM_LOCALID="0",
                     SLURM_STEP_NUM_TASKS="1", SLURM_STEP_TASKS_PER_NODE="1", SLURM_NODEID="0", SLURM_NTASKS="1",
                     SLURM_NODELIST="n1", SLURM_JOB_NODELIST="n1")
        alone = self.run_to_end([*JOB, *SYNTHETIC], how="plain")
        self.assertEqual(self.run_to_end([*JOB, *SYNTHETIC], how="plain", env=shell).digest, alone.digest)
        ended = self.run_to_end([*JOB, *SYNTHETIC, "--backend", "mpi"], code=2, how="plain", env=shell)
        self.assert_one_line(ended, "^--backend mpi: srun started this task without an MPI plugin")

    def test_openmp_gives_fewer_threads(self):
        job = [*JOB, *SYNTHETIC, "--threads", 2, "--quiet"]
        digest = self.run_to_end(job, how="plain").digest
        for where in (dict(how="plain"), dict(ranks=2), dict(ranks=2, how="threads")):
            with self.subTest(**where):
                self.assertEqual(self.run_to_end(job, env={"OMP_DYNAMIC": "true"}, **where).digest, digest)
                for name, value in (("OMP_THREAD_LIMIT", "1"), ("OMP_MAX_ACTIVE_LEVELS", "0")):
                    ended = self.run_to_end(job, code=2, seconds=30, env={name: value}, **where)
                    self.assert_one_line(ended, f"^OpenMP provides 1 of the 2 compute threads.*{name}={value}.*ask for 1$")
        one = self.run_to_end([*JOB, *SYNTHETIC, "--threads", 1], how="plain").digest
        limited = self.run_to_end([*JOB, *SYNTHETIC, "--threads", 1], how="plain", env={"OMP_THREAD_LIMIT": "1"})
        self.assertEqual(limited.digest, one, "one thread is what it gives")

    # Flags

    def test_flags_of_other_programs(self):
        for flag, ours in (("--batch-size", "--global-batch"), ("--batch_size=3", "--global-batch"),
                           ("--learning-rate", "--lr"), ("--learning_rate", "--lr"), ("--workers", "--loader-workers"),
                           ("--num-workers=2", "--loader-workers"), ("-b", "--global-batch"), ("-j", "--loader-workers"),
                           ("--max-steps", "--steps"), ("--num-epochs", "--epochs"), ("--output-dir", "--out"), ("--optim", "--optimizer"),
                           ("--save-interval=5", "--checkpoint-every"), ("--bf16", "--dtype bfloat16"), ("--log_dir", "--tensorboard"),
                           ("--world-size", "trireme launch -n"), ("--load", "--resume")):
            ended = self.run_to_end([*SYNTHETIC, flag], code=2, how="plain")
            self.assert_one_line(ended, f"^unknown flag {flag.split('=')[0]}: it is called {ours} here")

    def test_flags(self):
        for flags, pattern in (
                (["--stepz", 3], "unknown flag --stepz: did you mean --steps\\?"),
                (["--step=3"], "unknown flag --step: did you mean --steps\\?"),
                (["--no-such-thing-at-all"], "unknown flag --no-such-thing-at-all: --help lists them all"),
                (["-x"], "unknown flag -x"),
                (["8"], "unexpected argument '8'"),
                (["--steps", -3], "--steps -3: must be at least 1"),
                (["--steps", 0], "--steps 0: must be at least 1"),
                (["--global-batch", -64], "--global-batch -64: must be at least 1"),
                (["--seed", -1], "--seed '-1': must be a whole number, not negative"),
                (["--steps", "many"], "--steps 'many': must be a whole number"),
                (["--steps", "3.5"], "--steps '3.5': must be a whole number"),
                (["--steps", "99999999999999999999"], "--steps 99999999999999999999: is too large"),
                (["--steps", ""], "--steps '': must be a whole number"),
                (["--lr", "fast"], "--lr 'fast': must be a number"),
                (["--lr", "nan"], "--lr nan: must be finite"),
                (["--lr", "inf"], "--lr inf: must be finite"),
                (["--dropout", 1], "--dropout 1: must be at most 0.999"),
                (["--overlap", "maybe"], "--overlap 'maybe': must be on or off"),
                (["--optimizer", "sdg"], "--optimizer 'sdg': must be sgd, adamw, lars, lamb"),
                (["--lr"], "--lr needs a value"),
                (["--lr", "--quiet"], "--lr needs a value, but --quiet follows"),
                (["--epochs", 3], "steps 8 and epochs 3: give one of them"),
                (["--config", "/no/such/file"], "--config '/no/such/file': cannot read this file"),
                (["--config", "/"], "--config '/': cannot read this file"),
                (["--config", ""], "--config '': cannot read this file"),
                (["--config="], "--config needs a value")):
            self.refused(2, [*SYNTHETIC, *flags], pattern, places=(dict(how="plain"), dict(ranks=2)))

    def test_values(self):
        for flags, pattern in (
                (["--global-batch", 7], "--global-batch 7 does not cut into 4 equal shards: use --global-batch 4 or 8"),
                (["--global-batch", 3], "--global-batch 3 does not cut into 4 equal shards: use --global-batch 4"),
                (["--model", "lenett"], "--model lenett: .* use mlp\\|lenet\\|.*mobilenet\\|vit"),
                (["--data", "synthetic:1,2"], "synthetic:1,2"),
                (["--data", "carrots:x"], "'carrots:x' is not one of idx:DIR"),
                (["--device", "cuda"],
                 "(no usable NVIDIA GPU \\(.*\\)|no CUDA kernels); use --device cpu$|2 ranks that are threads cannot have"),
                (["--backend", "nccl"], "--backend"),
                (["--checkpoint-every", 2], "--checkpoint-every 2: there is no folder .*; give --checkpoint-dir or --out"),
                (["--metrics", "/proc/none/metrics.jsonl"], "--metrics: there is no folder /proc/none for"),
                (["--metrics", "/"], "--metrics: .*/"),
                (["--metrics", "/proc"], "--metrics: cannot open /proc: Is a directory"),
                (["--metrics", f"{self.dir}/no/such/m.jsonl"], f"--metrics: there is no folder {self.dir}/no/such for "),
                (["--tensorboard", "/dev/null"], "--tensorboard: .*/dev/null"),
                (["--checkpoint-dir", "/proc/none"], "/proc/none.*another --checkpoint-dir"),
                (["--checkpoint-dir", "/dev/null"], "/dev/null.*another --checkpoint-dir"),
                (["--out", "/dev/null"], "/dev/null.*another --out$"),
                (["--out", "/dev/null", "--checkpoint-dir", self.dir / "c"], "--out: .*/dev/null"),
                (["--out", "/dev/null/out"], "/dev/null/out.*another --out$")):
            self.refused(2, [*SYNTHETIC, *flags], pattern)
        self.refused(4, [*SYNTHETIC, "--resume", "/dev/null"], "^(rank 0: )?--resume '/dev/null': is a file; name a checkpoint's folder",
                     places=(dict(how="plain"), dict(ranks=2)))
        self.refused(2, [*SYNTHETIC, "--replay-ranks", 4], "--replay-ranks 4 needs one process, but 2 ranks",
                     places=[where for where in PLACES if where.get("ranks") == 2])
        self.refused(2, [*SYNTHETIC], "5 ranks for 4 shards: start with at most 4 ranks, or a new job with --shards 5",
                     places=[dict(ranks=5), dict(ranks=5, how="threads"), dict(ranks=5, how="mpirun")])

    def test_model_that_does_not_fit_the_data(self):
        self.refused(2, ["--data", "synthetic:1,6,6,10,64"], "lenet")

    def test_config(self):
        file = self.dir / "job.textproto"
        for text, pattern in (('model: "mlp"\nlr: fast\n', f"^{file}:2: "),
                              ('model: "mlp\n', f"^{file}:"),
                              ('model: "mlp"\n\nlearning_rate: 1\n', f'^{file}:3: .*learning_rate'),
                              ('\n\nglobal_batch: -4\n', f"^{file}:3: global_batch -4: must be at least 1"),
                              ("steps: 4 epochs: 5\n", f"{file} gives steps 4 and epochs 5: give one of them")):
            file.write_text(text)
            self.refused(2, [*SYNTHETIC, "--config", file], pattern, places=(dict(how="plain"), dict(ranks=2)))

    def test_print_config_round_trip(self):
        file = self.dir / "job.textproto"
        flags = [*JOB, *SYNTHETIC, "--lr", 0.1234567890123, "--overlap", "off", "--out", self.dir / 'it\'s "quoted" ü\\n',
                 "--seed", 2**64 - 1]
        printed = self.run_to_end([*flags, "--print-config"], how="plain")
        self.assertEqual(printed.err, "")
        file.write_text(printed.out)
        for ranks in (1, 2):
            again = self.run_to_end(["--config", file, "--print-config"], ranks=ranks)
            self.assertEqual(again.out, printed.out)
        one = self.run_to_end(flags, how="plain")
        shutil.rmtree(self.dir / 'it\'s "quoted" ü\\n')
        self.assertEqual(self.run_to_end(["--config", file], ranks=2).digests, one.digests)

    def test_short_help(self):
        self.assertEqual(self.run_to_end(["-h"], how="plain").out, self.run_to_end(["--help"], how="plain").out)

    def test_help(self):
        for where in PLACES:
            ended = self.run_to_end(["--help"], **where)
            self.assertEqual(ended.out.count("--global-batch B"), 1, ended)
            self.assertEqual(ended.err, "")

    # Data

    def write_data(self):
        """A sound data set of 64 and 16 images, packed for training and plain for the test."""
        folder = self.dir / "data"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for split, count in (("train", 64), ("t10k", 16)):
            images = struct.pack(">IIII", 0x803, count, 28, 28) + bytes(i * 7 % 251 for i in range(count * 784))
            labels = struct.pack(">II", 0x801, count) + bytes(i % 10 for i in range(count))
            for name, content in (("images-idx3", images), ("labels-idx1", labels)):
                path = folder / f"{split}-{name}-ubyte"
                if split == "train":
                    path.with_name(path.name + ".gz").write_bytes(gzip.compress(content, mtime=0))
                else:
                    path.write_bytes(content)
        return folder

    def test_data(self):
        self.run_to_end([*JOB, "--data", f"idx:{self.write_data()}"], ranks=2)  # sound as it is
        packed, plain, labels = "train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"

        def byte(content, at, value):
            return content[:at] + bytes([value]) + content[at + 1:]

        for file, change, pattern in (
                (packed, lambda c: c[:-100], ""),
                (packed, lambda c: c[:15], ""),
                (packed, lambda c: byte(c, -8, c[-8] ^ 1), ""),
                (packed, lambda c: byte(c, len(c) // 2, c[len(c) // 2] ^ 16), ""),
                (packed, lambda c: b"", "0 bytes"),
                (plain, lambda c: c[:-1], "header says 16 images of 28x28 \\(12544 bytes\\).* \\(12543 bytes\\)"),
                (plain, lambda c: c[:9], "9 bytes"),
                (plain, lambda c: c + b"x", "\\(12545 bytes\\)"),
                (plain, lambda c: byte(c, 4, 255), "header says 4278190096 images"),
                (plain, lambda c: byte(c, 3, 1), "magic is 0x00000801"),
                (plain, lambda c: c[:8] + bytes(4) + c[12:], "dimension 1 of 3 is 0"),
                (plain, lambda c: struct.pack(">IIII", 0x803, 16, 2**31, 2**31) + c[16:], "header says"),
                (labels, lambda c: byte(c, 11, 10), "label.*10"),
                (labels, None, "no such file")):
            folder = self.write_data()
            path = folder / file
            if change:
                content = path.read_bytes()
                path.write_bytes(change(content))
                self.assertNotEqual(path.read_bytes(), content)
            else:
                path.unlink()
            places = PLACES if file == packed else (dict(how="plain"), dict(ranks=2))
            self.refused(3, ["--data", f"idx:{folder}"], f"^{re.escape(str(folder))}/{file}.*{pattern}.*; ", places=places)
        folder = self.write_data()
        (folder / labels).write_bytes(struct.pack(">II", 0x801, 15) + bytes(15))
        self.refused(3, ["--data", f"idx:{folder}"], f"{plain}: holds 16 images, but .*{labels} holds 15 labels; ")
        self.refused(3, ["--data", "idx:/no/such/folder"], "^/no/such/folder: no such directory; .*--data idx:DIR")
        self.refused(3, ["--data", "idx:/etc/passwd"], "^/etc/passwd: no such directory; ")
        self.refused(3, ["--data", f"cifar:{self.dir}"], f"^{self.dir}.*; ", places=(dict(how="plain"), dict(ranks=2)))

    # What a job keeps

    def finished_job(self, more=()):
        """Flags of a job that has got through four of its steps."""
        flags = [*SYNTHETIC, "--checkpoint-dir", self.dir / "c", "--checkpoint-every", 2, "--metrics", self.dir / "m.jsonl"]
        self.run_to_end([*JOB, *flags, *more, "--steps", 4], ranks=2)
        return flags

    def left(self):
        return {p: p.read_bytes() for p in [self.dir / "m.jsonl", *(self.dir / "c").rglob("*")] if p.is_file()}

    def test_numbers_that_are_not_finite(self):
        for more in ([], ["--optimizer", "adamw"], ["--clip-norm", 1], ["--overlap", "off"]):
            shutil.rmtree(self.dir / "c", ignore_errors=True)
            (self.dir / "m.jsonl").unlink(missing_ok=True)
            base = self.finished_job(more)
            before = {p: c for p, c in self.left().items() if p.name != "m.jsonl"}
            for where in PLACES:
                ended = self.run_to_end([*JOB, *base, *more, "--steps", 100, "--lr", "1e30"], code=6, **where)
                self.assertEqual(len(re.findall(r"(?m)^.*(not finite|is inf|is -?nan|loss is).*$", ended.err)), 1, ended)
                self.assertRegex(ended.err, "(step|checkpoint).*--lr")
                if "the loss is" in ended.err:
                    self.assertIn("; the last checkpoint is of step 4: run again to go on from there", ended.err)
                self.assertNotIn("MPI_ABORT", ended.err)
                self.assertEqual({p: c for p, c in self.left().items() if p in before}, before)
            # The last checkpoint is one to go on from.
            self.run_to_end([*JOB, *base, *more], ranks=2)

    def test_refusals_change_nothing(self):
        flags = self.finished_job()
        before = self.left()
        for code, wrong in ((2, ["--model", "none"]), (3, ["--data", "idx:/no/such/folder"]), (2, ["--global-batch", 7]),
                            (4, ["--seed", 1]), (4, ["--resume", self.dir / "none"]), (2, ["--lr", "x"]),
                            (3, ["--data", "idx:/no/such/folder", "--resume", "never"]),
                            (2, ["--model", "none", "--resume", "never"]),
                            (2, ["--metrics", self.dir / "none" / "m.jsonl", "--resume", "never"])):
            for where in (dict(how="plain"), dict(ranks=2)):
                self.run_to_end([*JOB, *flags, *wrong], code=code, **where)
                self.assertEqual(self.left(), before, wrong)

    def mount(self, folder, *arguments):
        folder.mkdir(exist_ok=True)
        done = subprocess.run(["mount", *arguments, str(folder)], capture_output=True, text=True)
        if done.returncode != 0:
            self.skipTest(f"cannot mount a file system here: {done.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", "-l", str(folder)])

    def test_full_disk(self):
        disk = self.dir / "disk"
        self.mount(disk, "-t", "tmpfs", "-o", "size=1300k", "none")
        flags = [*SYNTHETIC, "--checkpoint-dir", disk / "c", "--checkpoint-every", 2, "--metrics", self.dir / "m.jsonl"]
        reference = self.run_to_end([*JOB, *SYNTHETIC], how="plain").digest
        for where in PLACES:
            shutil.rmtree(disk / "c", ignore_errors=True)
            (self.dir / "m.jsonl").unlink(missing_ok=True)
            ended = self.run_to_end([*JOB, *flags], code=4, **where)
            self.assertEqual(len(re.findall(r"(?m)^.*No space left on device: free space and run again.*$", ended.err)), 1, ended)
            self.assertRegex(ended.err, "checkpoint of step 6 was not saved \\(earlier ones are as they were\\)")
            self.assertEqual(sorted(os.listdir(disk / "c")), ["step-00000002", "step-00000004"])
            verified = subprocess.run([training.TRIREME, "checkpoint", "verify", str(disk / "c")], capture_output=True)
            self.assertEqual(verified.returncode, 0, verified)
        subprocess.run(["mount", "-o", "remount,size=10m", str(disk)], check=True)
        ended = self.run_to_end([*JOB, *flags], ranks=3)
        self.assertIn("after step 4", ended.err)
        self.assertEqual(ended.digest, reference)

    def test_full_disk_under_the_metrics(self):
        disk = self.dir / "disk"
        self.mount(disk, "-t", "tmpfs", "-o", "size=8k", "none")
        ended = self.run_to_end([*JOB, *SYNTHETIC, "--steps", 200, "--metrics", disk / "m.jsonl"], code=2, ranks=2)
        self.assertEqual(len(re.findall(r"(?m)^.*No space left on device: free space and run again.*$", ended.err)), 1, ended)

    def test_read_only(self):
        disk = self.dir / "disk"
        self.mount(disk, "-t", "tmpfs", "none")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        self.refused(2, [*SYNTHETIC, "--checkpoint-dir", disk / "c"], f"{disk}.*Read-only.*--checkpoint-dir")
        self.refused(2, [*SYNTHETIC, "--metrics", disk / "m.jsonl"], f"{disk}.*Read-only")


if __name__ == "__main__":
    training.main()
