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
                    if arguments != ["--help"]:
                        metrics.unlink(missing_ok=True)
                    code, said = self.run_in_shell(redirection, arguments)
                    self.assertEqual(code, 1, said)
                    self.assertRegex(said, r"\Astandard output could not be written.*\n\Z")
        self.assertEqual([line["step"] for line in training.read_metrics(metrics)], [1, 2, 3])
        metrics.unlink()
        self.assertEqual(self.run_in_shell("2>&- >/dev/null", [*JOB, "--steps", 3, "--metrics", metrics]), (0, ""))
        self.assertEqual(len(training.read_metrics(metrics)), 3)

    def test_a_reader_that_goes_away(self):
        """`| head -1` ends the output and not the job, which then ends with 1."""
        programs = {"train_classifier": JOB, "first_program": ["--data", "synthetic:1,4,4,2,640", "--global-batch", 64]}
        for name, job in programs.items():
            for launcher in ([], [training.TRIREME, "launch", "--backend", "local", "-n", "2", "--"],
                             [training.TRIREME, "launch", "-n", "2", "--"]):
                if launcher and name == "first_program":  # its ranks cannot be threads
                    continue
                with self.subTest(name, launcher=launcher):
                    metrics = self.dir / f"{name}-{len(launcher)}.jsonl"
                    line = [*launcher, training.BUILD / "bin" / name, *job, "--steps", 300, "--digest-every", 1, "--quiet",
                            "--metrics", metrics]
                    script = '"$@" | head -1; echo "exit code ${PIPESTATUS[0]}"'
                    ended = subprocess.run(["bash", "-c", script, "bash", *map(str, line)], capture_output=True, text=True,
                                           env=training.environment(), timeout=training.SECONDS)
                    self.assertRegex(ended.stdout, r"\Adigest step=1 sha256=\w+\nexit code 1\n\Z", ended)
                    self.assertRegex(ended.stderr, r"\A(trireme: )?standard output could not be written.*\n\Z")
                    self.assertEqual(len(training.read_metrics(metrics)), 300, "training went on to its end")

    def test_an_earlier_file_is_left_as_it_is(self):
        earlier, notes = self.dir / "m.jsonl", self.dir / "notes.txt"
        self.run_to_end([*JOB, "--steps", 5, "--metrics", earlier, "--digest-trail", self.dir / "t.jsonl"], how="plain")
        notes.write_text("not metrics at all\n")
        self.run_to_end([*JOB, "--steps", 5, "--out", self.dir / "out"], how="plain")
        for flag, path in (("--metrics", earlier), ("--metrics", notes), ("--digest-trail", self.dir / "t.jsonl"),
                           ("--digest-trail", notes), ("--out", self.dir / "out" / "metrics.jsonl")):
            before = path.read_bytes()
            value = path.parent if flag == "--out" else path
            for where in (dict(how="plain"), dict(ranks=2), dict(ranks=2, how="threads")):
                with self.subTest(flag=flag, path=path, **where):
                    ended = self.run_to_end([*JOB, "--steps", 2, flag, value, "--resume", "never"], code=2, **where)
                    self.assert_one_line(ended, f"^(rank 0: )?{flag}: {path} is not empty .{len(before)} bytes.*another name, or remove the file")
                    self.assertEqual(path.read_bytes(), before)

    def test_earlier_pictures_and_traces_are_left_as_they_are(self):
        kept = [*JOB, "--steps", 3, "--checkpoint-dir", self.dir / "c"]
        self.run_to_end([*kept, "--out", self.dir / "out", "--trace", self.dir / "t"], ranks=2)
        gan = ["--data", "synthetic:1,16,16,3,64", "--global-batch", 16, "--steps", 2]
        gan_folder = self.dir / "gan"
        by_gan = dict(program=training.BUILD / "bin" / "train_gan")
        self.run_to_end([*gan, "--out", gan_folder, "--metrics", self.dir / "g.jsonl"], **by_gan)
        curves, trace, samples = self.dir / "out" / "curves.png", self.dir / "t" / "trace-rank-1.json", gan_folder / "samples-0001.png"
        trace.with_name("trace-rank-0.json").unlink()
        for job, path, flags, where in (
                (JOB, curves, ["--out", self.dir / "out", "--metrics", self.dir / "n.jsonl"], {}),
                (JOB, trace, ["--trace", self.dir / "t"], {}),
                (gan, samples, ["--out", gan_folder, "--metrics", self.dir / "n.jsonl"], by_gan)):
            before = path.read_bytes()
            for ranks in (1, 2):
                with self.subTest(path=path, ranks=ranks):
                    ended = self.run_to_end([*job, *flags, "--shards", 2, "--resume", "never"], code=2, ranks=ranks, **where)
                    self.assert_one_line(ended, f"^(rank 0: )?{flags[0]}: {path} is not empty .{len(before)} bytes.*, and only a "
                                                "resumed run may replace it: choose another name, or remove the file first$")
                    self.assertEqual(path.read_bytes(), before)
                    self.assertFalse((self.dir / "n.jsonl").exists(), "a refused run makes no file")
        # A run that goes on replaces its own pictures and traces, those of ranks that it lacks included.
        before = curves.read_bytes()
        self.run_to_end([*kept, "--steps", 9, "--out", self.dir / "out", "--trace", self.dir / "t"], how="plain")
        self.assertNotEqual(curves.read_bytes(), before)
        self.assertEqual([p.name for p in (self.dir / "t").iterdir()], ["trace-rank-0.json"])

    def test_a_run_that_does_not_begin_leaves_no_trace(self):
        folder = self.dir / "t"
        for code, wrong in ((2, ["--model", "none"]), (2, ["--metrics", "/dev/null/m"]), (4, ["--init", "/dev/null"])):
            self.run_to_end([*JOB, "--steps", 2, "--trace", folder, *wrong], code=code, how="plain")
        self.run_to_end([*JOB, "--steps", 2, "--trace", folder], how="plain")
        self.assertGreater((folder / "trace-rank-0.json").stat().st_size, 0)

    def test_a_batch_that_is_larger_than_the_data_is_reported(self):
        job = ["--model", "mlp", "--data", "synthetic:1,4,4,3,60", "--quiet", "--steps", 2]
        for where in (dict(how="plain"), dict(ranks=2)):
            ended = self.run_to_end([*job, "--shards", 2, "--global-batch", 64], **where)
            self.assert_one_line(ended, "^--global-batch 64 is larger than the training set: each step has its 60 samples$")
        self.assertEqual(self.run_to_end([*job, "--global-batch", 60], how="plain").err, "")

    def test_outputs_that_meet_are_refused_before_any_is_made(self):
        (self.dir / "real").mkdir()
        (self.dir / "link").symlink_to(self.dir / "real")
        (self.dir / "taken").write_text("notes\n")
        m, other = self.dir / "real" / "m", self.dir / "link" / "m"
        for flags, pattern in (
                (["--metrics", m, "--digest-trail", m], f"^--digest-trail {m}: --metrics writes there, too .{m}.; choose another name"),
                (["--metrics", m, "--digest-trail", other], f"^--digest-trail {other}: --metrics writes there, too"),
                (["--metrics", m, "--digest-trail", f"{self.dir}/real/../real/m"], "^--digest-trail .*: --metrics writes there, too"),
                (["--metrics", m, "--tensorboard", m], f"^--tensorboard {m}: --metrics writes there, too"),
                (["--metrics", m, "--digest-trail", self.dir / "taken"], f"^--digest-trail: {self.dir}/taken is not empty"),
                (["--digest-trail", m, "--metrics", self.dir / "taken"], f"^--metrics: {self.dir}/taken is not empty"),
                (["--metrics", m, "--digest-trail", self.dir], f"^--digest-trail: cannot open {self.dir}: Is a directory"),
                (["--metrics", m, "--tensorboard", self.dir / "taken"], f"^--tensorboard: cannot make folder {self.dir}/taken")):
            ended = self.run_to_end([*JOB, "--steps", 2, *flags], code=2, how="plain")
            self.assert_one_line(ended, pattern)
            self.assertEqual(list((self.dir / "real").iterdir()), [], flags)
            self.assertEqual((self.dir / "taken").read_text(), "notes\n")
        self.run_to_end([*JOB, "--steps", 2, "--metrics", "/dev/null", "--digest-trail", "/dev/null"], how="plain")

    def test_a_replay_leaves_the_metrics_of_its_run(self):
        metrics = self.dir / "m.jsonl"
        kept = [*JOB, "--checkpoint-dir", self.dir / "c", "--steps", 6, "--metrics", metrics]
        self.run_to_end([*kept, "--checkpoint-every", 3], how="plain")
        self.run_to_end([*kept, "--replay-from", 3], code=2, how="plain")
        self.assertEqual([line["step"] for line in training.read_metrics(metrics)], list(range(1, 7)))

    def test_a_restart_without_a_checkpoint_sets_the_earlier_attempt_aside(self):
        metrics = self.dir / "m.jsonl"
        run = self.start([*JOB, "--steps", 200000, "--metrics", metrics], ranks=2, flags=["--restarts", 1])
        while not metrics.exists() or len(metrics.read_bytes().splitlines()) < 3:
            self.assertTrue(run.running(), run.err())
        training.os.kill(training.rank_processes()[1], training.signal.SIGKILL)
        while not (self.dir / "m.jsonl.attempt-1").exists():
            self.assertTrue(run.running(), run.err())
        while not metrics.exists() or len(metrics.read_bytes().splitlines()) < 3:
            self.assertTrue(run.running(), run.err())
        run.process.terminate()
        run.wait()
        for path in (metrics, self.dir / "m.jsonl.attempt-1"):
            steps = [line["step"] for line in training.read_metrics(path)]
            self.assertEqual(steps, list(range(1, len(steps) + 1)))

    def test_the_figures_of_a_step(self):
        """Epochs count from 1, and evaluating is no communication of a step."""
        metrics = self.dir / "m.jsonl"
        self.run_to_end([*JOB, "--epochs", 2, "--metrics", metrics], ranks=2)
        lines = training.read_metrics(metrics)
        self.assertEqual([line["epoch"] for line in lines], [1] * 12 + [2] * 12)
        evaluated = [line for line in lines if "eval_accuracy" in line]
        self.assertEqual(len(evaluated), 2)
        for line in evaluated:
            self.assertLessEqual(line["comm_ms"], line["step_ms"])

    def test_a_schedule_of_another_length(self):
        kept = [*JOB, "--quiet", "--schedule", "cosine", "--checkpoint-dir", self.dir / "c"]
        self.run_to_end([*kept, "--steps", 10], how="plain")
        for where in (dict(how="plain"), dict(ranks=2)):
            ended = self.run_to_end([*kept, "--steps", 12], **where)
            self.assert_one_line(ended, "^the run was planned for 10 steps and now has 12: with --schedule cosine the learning "
                                        "rate after 10 steps is 0.006699 instead of 0$")
            training.shutil.rmtree(self.dir / "c" / "step-00000012")
        ended = self.run_to_end([*JOB, "--quiet", "--steps", 4, "--warmup-steps", 8], how="plain")
        self.assert_one_line(ended, "^--warmup-steps 8 is longer than the run of 4 steps: .* 0.05 and never reaches --lr 0.1$")
        ended = self.run_to_end([*JOB, "--schedule", "onecycle", "--warmup-steps", 4], code=2, how="plain")
        self.assert_one_line(ended, "^--warmup-steps 4: --schedule onecycle rises by itself")

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
        # Nor do two jobs share one file of metrics.
        lines = len(training.read_metrics(self.dir / "m.jsonl"))
        for where in (dict(how="plain"), dict(ranks=2)):
            ended = self.run_to_end([*JOB, "--steps", 3, "--metrics", self.dir / "m.jsonl"], code=2, **where)
            self.assert_one_line(ended, f"^(rank 0: )?--metrics: another job still writes to {self.dir}/m.jsonl: choose another file")
        self.assertGreaterEqual(len(training.read_metrics(self.dir / "m.jsonl")), lines)
        # A killed job holds nothing.
        run.process.kill()
        run.process.wait()
        self.nobody_left()
        (self.dir / "m.jsonl").unlink()
        self.run_to_end([*arguments, "--steps", 3], ranks=2)
        self.assertFalse((folder / ".lock").exists())


if __name__ == "__main__":
    training.main()
