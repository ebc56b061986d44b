#!/usr/bin/env python3
"""What a run tells and writes: its figures agree, its warnings are not lost, and it does not end well if its output did not.

    test_outputs.py SOURCE BUILD [names of tests]
"""
import re
import subprocess

import training

JOB = ["--model", "mlp", "--data", "synthetic:1,16,16,10,721", "--global-batch", 64, "--shards", 2]


class Outputs(training.Training):
    def run_in_shell(self, redirection, arguments):
        """A plain run whose files a shell has redirected. Exit code and standard error."""
        line = ["sh", "-c", f'"$@" {redirection}', "sh", *training.command(arguments, how="plain")]
        ended = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=training.environment(), timeout=training.SECONDS)
        return ended.returncode, ended.stderr

    def test_throughput_is_that_of_the_metrics(self):
        # Evaluating takes longer than a step, so counting it would show.
        metrics = self.dir / "m.jsonl"
        arguments = [*JOB, "--metrics", metrics, "--checkpoint-dir", self.dir / "c", "--checkpoint-every", 3]
        self.run_to_end([*arguments, "--steps", 20], ranks=2)
        for ranks, word, steps in ((2, "2 ranks", 60), (1, "1 rank", 100)):
            before = len(training.read_metrics(metrics))
            ended = self.run_to_end([*arguments, "--steps", steps], ranks=ranks)
            lines = training.read_metrics(metrics)[before:]  # of this run, not of the one that it goes on from
            samples = sum(line["samples_per_s"] * line["step_ms"] / 1e3 for line in lines)
            rate = samples / sum(line["step_ms"] / 1e3 for line in lines)
            self.assertEqual(re.findall(r"(?m)^throughput: (\d+) images/s on (.*)$", ended.out), [(f"{rate:.0f}", word)])

    def test_warnings_when_quiet(self):
        arguments = [*JOB, "--quiet", "on", "--checkpoint-dir", self.dir / "c", "--checkpoint-every", 5]
        self.assertEqual(self.run_to_end([*arguments, "--steps", 10], ranks=2).err, "")
        newest = self.dir / "c" / "step-00000010"
        (newest / "manifest.pb").write_bytes(b"")
        for where in (dict(how="plain"), dict(ranks=2)):
            with self.subTest(**where):
                ended = self.run_to_end([*arguments, "--steps", 5], **where)
                self.assert_one_line(ended, f"^checkpoint {newest} is damaged and passed over: ")

    def test_nothing_is_left_to_train(self):
        arguments = [*JOB, "--checkpoint-dir", self.dir / "c"]
        self.run_to_end([*arguments, "--steps", 10], how="plain")
        for steps in (10, 4):
            ended = self.run_to_end([*arguments, "--steps", steps], ranks=2)
            self.assertRegex(ended.err, f"(?m)^nothing is left to train: 10 steps are done, {steps} were asked for$")

    def test_output_that_is_lost(self):
        metrics = self.dir / "m.jsonl"
        for redirection in (">/dev/full", ">&-", ">&- <&-"):
            for arguments in ([*JOB, "--steps", 3, "--quiet", "--metrics", metrics], ["--help"]):
                with self.subTest(redirection, arguments=arguments):
                    code, said = self.run_in_shell(redirection, arguments)
                    self.assertEqual(code, 1, said)
                    self.assertRegex(said, r"\Astandard output could not be written.*\n\Z")
        self.assertEqual([line["step"] for line in training.read_metrics(metrics)], [1, 2, 3])
        self.assertEqual(self.run_in_shell("2>&- >/dev/null", [*JOB, "--steps", 3, "--metrics", metrics]), (0, ""))
        self.assertEqual(len(training.read_metrics(metrics)), 3)

    def test_two_jobs_in_one_folder(self):
        folder = self.dir / "c"
        arguments = [*JOB, "--checkpoint-dir", folder, "--metrics", self.dir / "m.jsonl"]
        run = self.start([*arguments, "--steps", 100000], ranks=2)
        while not (self.dir / "m.jsonl").exists():
            self.assertTrue(run.running(), run.err())
        rank = training.rank_processes()[0]
        for where in (dict(how="plain"), dict(ranks=2), dict(ranks=2, how="threads")):
            for more in ([], ["--resume", "never"]):
                with self.subTest(more=more, **where):
                    ended = self.run_to_end([*JOB, "--steps", 3, "--checkpoint-dir", folder, *more], code=2, seconds=20,
                                            **where)
                    self.assert_one_line(ended, fr"another job \(process {rank} on .*\) still writes to '{folder}'; ")
        # A killed job holds nothing.
        run.process.kill()
        run.process.wait()
        self.nobody_left()
        self.run_to_end([*arguments, "--steps", 3], ranks=2)
        self.assertFalse((folder / ".lock").exists())


if __name__ == "__main__":
    training.main()
