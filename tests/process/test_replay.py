#!/usr/bin/env python3
"""A run of many ranks again in one process: from the start, from a checkpoint, and under a debugger.

    test_replay.py SOURCE BUILD [names of tests]
"""
import shutil
import subprocess

import training

JOB = ["--model", "lenet", "--data", "synthetic:1,28,28,10,256", "--global-batch", 32, "--shards", 4, "--steps", 9,
       "--digest-every", 1, "--optimizer", "lamb", "--lr", 0.01, "--weight-decay", 0.01]


class Replay(training.Training):
    def setUp(self):
        super().setUp()
        self.kept = self.dir / "checkpoints"

    def files(self):
        return sorted(str(path.relative_to(self.kept)) for path in self.kept.rglob("*"))

    def test_from_a_checkpoint(self):
        real = self.run_to_end([*JOB, "--checkpoint-dir", self.kept, "--checkpoint-every", 3, "--keep-checkpoints", 5], ranks=4)
        before = self.files()
        for step in (3, 6):
            replay = self.run_to_end([*JOB, "--checkpoint-dir", self.kept, "--replay-ranks", 4, "--replay-from", step],
                                     how="plain")
            self.assertEqual(replay.digests, {at: digest for at, digest in real.digests.items() if int(at) > step})
            self.assertEqual(self.files(), before, "a replay keeps nothing")

    def test_of_a_run_that_keeps_all_in_one_folder(self):
        out = self.dir / "out"
        real = self.run_to_end([*JOB, "--out", out, "--checkpoint-every", 3, "--keep-checkpoints", 5], ranks=2)
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        replay = self.run_to_end([*JOB, "--out", out, "--replay-ranks", 2, "--replay-from", 6], how="plain",
                                 env={"SLURM_RESTART_COUNT": "1"})
        self.assertEqual(replay.digests, {at: digest for at, digest in real.digests.items() if int(at) > 6})
        after = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        self.assertEqual(after, before, "a replay changes no file of the run")

    def diff(self, first, second, code):
        ran = subprocess.run([training.TRIREME, "checkpoint", "diff", first, second], capture_output=True, text=True, timeout=60)
        self.assertEqual(ran.returncode, code, ran)
        return ran.stdout + ran.stderr

    def test_where_two_runs_part(self):
        real, replay, other = (self.dir / f"{name}.jsonl" for name in ("real", "replay", "other"))
        self.run_to_end([*JOB, "--checkpoint-dir", self.kept, "--checkpoint-every", 3, "--keep-checkpoints", 5,
                         "--zero", 1, "--digest-trail", real], ranks=4)
        again = [*JOB, "--checkpoint-dir", self.kept, "--replay-ranks", 4, "--replay-from", 3]
        self.run_to_end([*again, "--digest-trail", replay], how="plain")
        self.assertEqual(self.diff(real, replay, 0), "the same: 6 steps; 3 more only in the first\n")
        self.run_to_end([*again, "--lr", 0.02, "--digest-trail", other], how="plain")
        self.assertRegex(self.diff(real, other, 1), r"^step 4 is the first that differs, in model\.\S+, .* and \d+ more\n$")
        # The moments do not depend on the learning rate, in the first step.
        self.assertNotIn("exp_avg", self.diff(other, real, 1))
        # Nothing is left to train, and nothing is written.
        self.run_to_end([*JOB, "--checkpoint-dir", self.kept, "--digest-trail", real], ranks=2)
        self.assertEqual(self.diff(real, replay, 0), "the same: 6 steps; 3 more only in the first\n")
        self.assertIn("'/no/such' does not exist", self.diff(real, "/no/such", 2))
        self.assertIn("is none: give two of a kind", self.diff(real, self.kept, 2))
        (self.dir / "empty.jsonl").write_text('{"step": 99, "digest": "x"}\n')
        self.assertIn("no step in common", self.diff(real, self.dir / "empty.jsonl", 2))

    def test_what_cannot_be_replayed(self):
        self.run_to_end([*JOB, "--checkpoint-dir", self.kept, "--checkpoint-every", 3, "--keep-checkpoints", 5], ranks=2)
        for flags, code, line in (
                (["--replay-from", 4, "--checkpoint-dir", self.kept], 4, "has no checkpoint of that step; it has those of 3, 6, 9"),
                (["--replay-from", 3, "--checkpoint-dir", self.dir / "none"], 4, "has no checkpoint of that step; it has none"),
                (["--replay-from", 3], 2, "--replay-from 3: needs the --checkpoint-dir of the run"),
                (["--inspect-shard", 4], 2, "--inspect-shard 4: the job has shards 0 to 3"),
                (["--inspect-shard", 3], 2, "--inspect-shard 3: no debugger is there to stop")):
            for ranks in (1, 2):
                with self.subTest(flags=flags, ranks=ranks):
                    self.assert_one_line(self.run_to_end([*JOB, *flags], code=code, ranks=ranks), line)

    def test_a_debugger_stops_at_a_shard(self):
        if not shutil.which("gdb"):
            self.skipTest("no gdb")
        ran = subprocess.run(["gdb", "--batch", "-ex", "run", "-ex", "backtrace 8", "-ex", "continue", "-ex", "kill", "--args",
                              training.TRAIN, *map(str, JOB), "--replay-ranks", "4", "--inspect-shard", "2"],
                             env=training.environment(), capture_output=True, text=True, timeout=training.SECONDS)
        self.assertEqual(ran.stdout.count("SIGTRAP"), 2, ran)
        self.assertIn("trireme::Job::next_shard", ran.stdout)


if __name__ == "__main__":
    training.main()
