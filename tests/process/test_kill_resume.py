#!/usr/bin/env python3
"""Whatever is killed, whenever: the job goes on, on any number of ranks, and ends with the bits of an undisturbed run.

    test_kill_resume.py SOURCE BUILD [names of tests]        TRIREME_SEED=N repeats a run, TRIREME_LONG=1: more rounds
"""
import contextlib
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import time

import training
from training import LONG

SEED = int(os.environ.get("TRIREME_SEED", random.SystemRandom().getrandbits(32)))
STEPS = 120
# Ten epochs of 12 steps, whose last batch does not cut evenly into the shards.
JOB = ["--model", "mlp", "--data", "synthetic:1,16,16,10,721", "--global-batch", 64, "--shards", 4, "--augment",
       "--dropout", 0.2, "--digest-every", 1]


class KillResume(training.Training):
    reference = None  # metrics of the undisturbed run

    def setUp(self):
        super().setUp()
        self.random = random.Random(f"{SEED} {self.id()}")
        self.checkpoints = self.dir / "checkpoints"
        self.metrics = self.dir / "metrics.jsonl"
        if KillResume.reference is None:
            path = self.dir / "undisturbed.jsonl"
            ended = self.run_to_end([*JOB, "--steps", STEPS, "--metrics", path], how="plain")
            KillResume.reference = training.without_times(training.read_metrics(path))
            KillResume.digest = ended.digest

    def job(self, *more, steps=STEPS, every=5):
        return [*JOB, "--steps", steps, "--metrics", self.metrics, "--checkpoint-dir", self.checkpoints,
                "--checkpoint-every", every, *more]

    def committed(self):
        return sorted(p for p in self.checkpoints.glob("step-*") if re.fullmatch(r"step-\d{8}", p.name))

    def lines_of_metrics(self):
        return len(self.metrics.read_bytes().splitlines()) if self.metrics.exists() else 0

    def wait_until(self, condition, run, what):
        """Polls without a rest, to see short moments too. False if the run ends first."""
        end = time.monotonic() + training.SECONDS
        while not condition():
            if not run.running():
                return False
            if time.monotonic() > end:
                self.fail(f"waited too long for {what}")
            time.sleep(0.0005)
        return True

    def kill_a_rank(self, run):
        """kill -9 of a random rank. False if they were gone already."""
        ranks = training.rank_processes()
        if not run.running() or not ranks:
            return False
        rank = self.random.choice(sorted(ranks))
        try:
            os.kill(ranks[rank], signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def check_result(self, ended):
        self.assertEqual(ended.digest, self.digest)
        metrics = training.without_times(training.read_metrics(self.metrics))
        self.assertEqual([line["step"] for line in metrics], list(range(1, STEPS + 1)))
        self.assertEqual(metrics, self.reference)
        self.assertFalse(list(self.checkpoints.glob("*.tmp.*")), "attempts are left")
        self.verify(2)

    def verify(self, count):
        """All committed checkpoints are sound, and there are so many."""
        self.assertEqual(len(self.committed()), count)
        for checkpoint in self.committed():
            self.trireme("checkpoint", "verify", checkpoint)

    def trireme(self, *arguments):
        ended = subprocess.run([training.TRIREME, *map(str, arguments)], capture_output=True, text=True,
                                        timeout=training.SECONDS)
        self.assertEqual(ended.returncode, 0, ended)
        return ended.stdout

    def begin_anew_without_checkpoints(self):
        """A run that does not resume leaves the metrics of an earlier one as they are, so they have to go."""
        if not self.committed():
            self.metrics.unlink(missing_ok=True)

    def kill_rounds(self, rounds, kill, every):
        """Kills once a round, `kill(run)` says whether it did, each on another number of ranks; then lets it end."""
        ranks = 0
        for _ in range(rounds):
            ranks = self.random.choice([n for n in (1, 2, 3, 4) if n != ranks])
            self.begin_anew_without_checkpoints()
            run = self.start(self.job(every=every), ranks=ranks)
            killed = kill(run)
            ended = run.wait()
            if not killed:
                self.assertEqual(ended.code, 0, ended)
                break
            self.assertEqual(ended.code, 5, ended)
            self.assertRegex(ended.err, r"(?m)^trireme: rank \d was killed by signal 9 \(SIGKILL\)$")
        self.begin_anew_without_checkpoints()
        self.check_result(self.run_to_end(self.job(every=every), ranks=ranks % 4 + 1))

    def test_a_rank_is_killed_at_any_moment(self):
        def kill(run):
            goal = min(STEPS - 1, self.lines_of_metrics() + self.random.randrange(30))
            self.wait_until(lambda: self.lines_of_metrics() >= goal and training.rank_processes(), run, f"step {goal}")
            time.sleep(self.random.uniform(0, 0.1))
            return self.kill_a_rank(run)
        self.kill_rounds(12 if LONG else 5, kill, every=5)

    def test_a_rank_is_killed_while_a_checkpoint_is_written(self):
        def kill(run):
            goal = min(STEPS - 10, self.lines_of_metrics() + self.random.randrange(20))
            attempt = lambda: self.lines_of_metrics() >= goal and any(self.checkpoints.glob("*.tmp.*"))
            self.wait_until(attempt, run, f"an attempt after step {goal}")
            time.sleep(self.random.uniform(0, 0.01))
            return self.kill_a_rank(run)
        self.kill_rounds(12 if LONG else 5, kill, every=1)

    def test_the_launcher_restarts_what_is_left(self):
        run = self.start(self.job(), ranks=3, flags=["--restarts", 2])
        for goal in (20, 60):
            self.wait_until(lambda: self.lines_of_metrics() >= goal, run, f"step {goal}")
            self.assertTrue(self.kill_a_rank(run))
            self.wait_until(lambda: self.lines_of_metrics() < goal, run, "the restart")
        ended = run.wait()
        self.assertEqual(ended.code, 0, ended)
        self.assertEqual(len(re.findall(r"; restarting on \d ranks?", ended.err)), 2, ended)
        self.check_result(ended)

    def test_a_rank_hangs(self):
        """The others give up after their patience; the one that hung is named, and the rest goes on without it."""
        for hung in (0, 2):
            with self.subTest(hung=hung):
                shutil.rmtree(self.checkpoints, ignore_errors=True)
                run = self.start(self.job("--patience", 3), ranks=3, flags=["--restarts", 1])
                self.assertTrue(self.wait_until(lambda: self.lines_of_metrics() >= 20, run, "step 20"))
                os.kill(training.rank_processes()[hung], signal.SIGSTOP)
                ended = run.wait()
                self.assertEqual(ended.code, 0, ended)
                self.assertEqual(self.notes_of(ended, "^trireme: "), [
                    f"trireme: rank {hung} did not answer the others and had to be killed; restarting on 2 ranks "
                    "(restart 1 of 1)"])
                self.assertRegex(ended.err, f"(?m)^rank \\d: (?!rank).*no answer from rank {hung}")
                self.check_result(ended)
                self.metrics.unlink()

    def test_the_launcher_is_killed(self):
        for goal in (15, 50):
            run = self.start(self.job(), ranks=3)
            self.wait_until(lambda: self.lines_of_metrics() >= goal, run, f"step {goal}")
            run.process.kill()
            run.process.wait()
            self.nobody_left()
        self.check_result(self.run_to_end(self.job(), ranks=2))

    def check_that_kernels_see_no_signal(self, number):
        """A handler's frame on a thread that runs a kernel of oneDNN may overwrite the heap."""
        for pid in training.rank_processes().values():
            masks = [re.search(r"SigBlk:\s*(\w+)", status.read_text())[1]
                     for status in pathlib.Path(f"/proc/{pid}/task").glob("*/status")]
            open_to_it = [mask for mask in masks if not int(mask, 16) >> (number - 1) & 1]
            self.assertEqual(len(open_to_it), 1, "one thread waits for signals, and no other gets them")

    def test_a_signal_commits_a_checkpoint(self):
        for how, ranks, number in (("launch", 3, signal.SIGTERM), ("threads", 2, signal.SIGINT),
                                   ("plain", 1, signal.SIGTERM), ("launch", 2, signal.SIGUSR1),
                                   ("launch", 2, signal.SIGUSR2), ("plain", 1, signal.SIGXCPU),
                                   ("launch", 2, signal.SIGXCPU), ("threads", 2, signal.SIGUSR2)):
            with self.subTest(how=how, ranks=ranks, signal=number):
                goal = self.lines_of_metrics() + 10
                # So many steps that the signal comes before the end, however fast the machine is.
                run = self.start(self.job("--steps", 100000, every=0), ranks=ranks, how=how)
                self.assertTrue(self.wait_until(lambda: self.lines_of_metrics() >= goal, run, f"step {goal}"))
                self.check_that_kernels_see_no_signal(number)
                run.process.send_signal(number)
                ended = run.wait()
                self.assertEqual(ended.code, 75, ended)
                step = int(re.search(r"(?m)^stopped by a signal after step (\d+); its checkpoint is committed", ended.err)[1])
                self.assertEqual(self.committed()[-1].name, f"step-{step:08}")
                self.assertEqual(self.lines_of_metrics(), step)
        ended = self.run_to_end(self.job("--steps", step + 5, every=0), ranks=2)
        self.assertEqual(ended.digest, self.run_to_end([*JOB, "--steps", step + 5], ranks=1).digest)

    def test_a_signal_without_checkpoints(self):
        run = self.start([*JOB, "--steps", 100000, "--metrics", self.metrics], ranks=2)
        self.wait_until(lambda: self.lines_of_metrics() >= 5, run, "step 5")
        run.process.send_signal(signal.SIGTERM)
        ended = run.wait()
        self.assertEqual(ended.code, 128 + signal.SIGTERM, ended)
        self.assertRegex(ended.err, "nothing was kept")

    def stop_after(self, steps, every=5):
        """Trains so far, then looks as if it had been stopped there."""
        self.run_to_end(self.job(steps=steps, every=every), ranks=2)
        return self.committed()

    def notes_of(self, ended, pattern):
        return [line for line in ended.err.splitlines() if re.search(pattern, line)]

    def damage(self, file):
        """Flips one bit of one byte."""
        content = bytearray(file.read_bytes())
        at = self.random.randrange(len(content))
        content[at] ^= 1 << self.random.randrange(8)
        file.write_bytes(content)

    def test_damage_is_passed_over(self):
        for kind in ("*.safetensors", "manifest.pb"):
            with self.subTest(kind):
                shutil.rmtree(self.checkpoints, ignore_errors=True)
                self.begin_anew_without_checkpoints()
                older, newest = self.stop_after(20)
                self.damage(self.random.choice(sorted(newest.glob(kind))))
                ended = self.run_to_end(self.job(), ranks=3)
                self.assertEqual(len(self.notes_of(ended, f"{newest} is damaged and passed over: ")), 1, ended)
                self.assertEqual(len(self.notes_of(ended, f"going on from {older}, after step 15")), 1, ended)
                self.check_result(ended)

    def test_all_are_damaged(self):
        for checkpoint in self.stop_after(20):
            (checkpoint / "manifest.pb").write_bytes(b"")
        before = self.metrics.read_bytes()
        for where in (dict(how="plain"), dict(ranks=2), dict(ranks=2, how="mpirun"), dict(ranks=2, how="threads")):
            ended = self.run_to_end(self.job(), code=4, **where)
            self.assert_one_line(ended, r"all 2 checkpoints in .* are damaged .*--resume never")
        self.assertEqual(self.metrics.read_bytes(), before)

    def test_what_was_never_committed_is_not_seen(self):
        newest = self.stop_after(20)[-1]
        foreign = self.checkpoints / "step-00000099.tmp.0123456789abcdef.1"
        shutil.copytree(newest, foreign)
        (self.checkpoints / "step-00000098").write_text("a file")
        (self.checkpoints / "step-00000098.tmp.x").write_text("")
        (self.checkpoints / "notes.txt").write_text("mine")
        ended = self.run_to_end(self.job(), ranks=3)
        self.assertEqual(len(self.notes_of(ended, f"going on from {newest}, after step 20")), 1, ended)
        self.assertEqual(ended.digest, self.digest)
        self.assertTrue((self.checkpoints / "notes.txt").exists())
        self.assertTrue(foreign.exists(), "another run's attempt was removed")

    def test_resume_from_a_path(self):
        older, newest = self.stop_after(20)
        kept = self.dir / "kept"  # going on to the end removes the older ones
        shutil.copytree(self.checkpoints, kept)
        here = os.getcwd()
        for path, folder, step in ((older, here, 15), (f"{older}/", here, 15), (os.path.relpath(older), here, 15),
                                   (older.name, self.checkpoints, 15), (".", self.checkpoints, 20),
                                   (self.checkpoints.name, self.dir, 20), (f"{self.checkpoints}/", here, 20)):
            shutil.rmtree(self.checkpoints)
            shutil.copytree(kept, self.checkpoints)
            with contextlib.chdir(folder):
                ended = self.run_to_end(self.job("--resume", path), ranks=3)
            self.assertEqual(len(self.notes_of(ended, f"after step {step}$")), 1, ended)
            self.check_result(ended)
        # Nothing is kept of this one, and the checkpoint is left alone.
        older = self.committed()[0]
        step = int(older.name[5:])
        ended = self.run_to_end([*JOB, "--steps", STEPS, "--resume", older], ranks=2)
        self.assertEqual(list(ended.digests), [str(s) for s in range(step + 1, STEPS + 1)])
        self.assertEqual(ended.digest, self.digest)
        self.verify(2)

    def test_resume_from_no_checkpoint(self):
        (self.dir / "lost" / "step-00000001").mkdir(parents=True)
        for path, code in ((self.dir / "none", 4), (self.dir, 4), ("/dev/null", 4), ("lost", 4), ("./none", 4),
                           ("lost/step-00000001", 4), ("maybe", 2), ("", 2)):
            for where in (dict(how="plain"), dict(ranks=2)):
                with self.subTest(path=path, **where), contextlib.chdir(self.dir):
                    ended = self.run_to_end(self.job("--resume", path), code=code, **where)
                    self.assert_one_line(ended, re.escape(str(path).removeprefix("./") or "''"))
        for checkpoint in self.stop_after(20):
            (checkpoint / "manifest.pb").write_bytes(b"")
        ended = self.run_to_end(self.job("--resume", self.checkpoints, "--checkpoint-dir", self.dir / "new"), code=4)
        self.assert_one_line(ended, f"--resume {self.checkpoints}: all 2 checkpoints there are damaged ")

    def test_another_job_is_refused(self):
        self.stop_after(10)
        before = {p: p.read_bytes() for p in [self.metrics, *self.checkpoints.rglob("*")] if p.is_file()}
        for flags, then, now in ((["--global-batch", 128], "--global-batch 64", "128"), (["--seed", 3], "--seed 0", "3"),
                                 (["--shards", 8], "--shards 4", "8"), (["--threads", 2], "--threads 1", "2"),
                                 (["--model", "lenet"], "--model mlp", "lenet"),
                                 (["--optimizer", "adamw"], "--optimizer sgd", "adamw"),
                                 (["--dtype", "bfloat16"], "--dtype float32", "bfloat16"),
                                 (["--augment", "off"], "--augment on", "off"), (["--dropout", 0], "--dropout 0.2", "0"),
                                 (["--label-smoothing", 0.1], "--label-smoothing 0", "0.1"),
                                 (["--data", "synthetic:1,16,15,10,721"], "a training set with digest [0-9a-f]{16}", "[0-9a-f]{16}"),
                                 (["--data", "synthetic:1,16,16,10,700"], "size 721", "700")):
            for where in (dict(how="plain"), dict(ranks=2), dict(ranks=2, how="threads")):
                ended = self.run_to_end(self.job(*flags), code=4, **where)
                self.assert_one_line(ended, f"step-00000010.* made with .*{then}, this run has {now}")
        after = {p: p.read_bytes() for p in [self.metrics, *self.checkpoints.rglob("*")] if p.is_file()}
        self.assertEqual(before.keys(), after.keys())
        self.assertTrue(before == after, "a refused run changed something")

    def test_what_may_be_steered_is_said(self):
        self.stop_after(10)
        steered = self.run_to_end(self.job("--lr", 0.05, "--clip-norm", 1, "--bucket-mb", 1, steps=12), ranks=2)
        self.assertEqual(self.notes_of(steered, "from here on$"),
                         ["--lr was 0.1 up to step 10 and is 0.05 from here on",
                          "--clip-norm was 0 up to step 10 and is 1 from here on"])
        again = self.run_to_end(self.job("--lr", 0.05, "--clip-norm", 1, "--quiet", steps=14), ranks=1)
        self.assertEqual(again.err, "")

    def test_initial_weights_are_not_used_again(self):
        self.stop_after(10)
        ended = self.run_to_end(self.job("--init", "/no/such/file", "--quiet"), ranks=2)
        self.assertEqual(self.notes_of(ended, ""), [
            f"--init '/no/such/file' is not used: the weights come from checkpoint {self.checkpoints}/step-00000010"])
        self.assertEqual(ended.digest, self.digest)

    def test_a_folder_without_a_manifest(self):
        older, newest = self.stop_after(20)
        (newest / "manifest.pb").unlink()
        (self.checkpoints / "step-00000012").mkdir()  # not on the way
        ended = self.run_to_end(self.job(), ranks=2)
        self.assertEqual(self.notes_of(ended, "passed over"),
                         [f"checkpoint {newest} is damaged and passed over: it has no manifest.pb"])
        self.assertEqual(len(self.notes_of(ended, f"going on from {older}, after step 15")), 1, ended)
        self.assertEqual(ended.digest, self.digest)

    def test_nothing_is_left_to_do(self):
        self.stop_after(STEPS)
        before = self.metrics.read_bytes()
        for ranks in (1, 3):
            ended = self.run_to_end(self.job(), ranks=ranks)
            self.assertEqual(ended.digest, self.digest)
            self.assertIn("test accuracy", ended.out)
            self.assertEqual(self.metrics.read_bytes(), before)
        self.check_result(ended)

    def test_starting_over(self):
        """--resume never: the run stands alone, and when it is interrupted, it is this one that goes on."""
        self.run_to_end(self.job("--lr", 0.01, steps=40), ranks=2)
        before = self.metrics.read_bytes()
        refused = self.run_to_end(self.job("--resume", "never"), code=2, ranks=2)
        self.assert_one_line(refused, f"^rank 0: --metrics: {self.metrics} is not empty .{len(before)} bytes.*another name, or remove")
        self.assertEqual(self.metrics.read_bytes(), before)
        self.metrics.unlink()
        run = self.start(self.job("--resume", "never"), ranks=2)
        self.wait_until(lambda: [p for p in self.committed() if p.name == "step-00000010"], run, "step 10")
        self.assertTrue(self.kill_a_rank(run))
        run.wait()
        self.check_result(self.run_to_end(self.job(), ranks=3))


if __name__ == "__main__":
    print(f"TRIREME_SEED={SEED}", flush=True)
    training.main()
