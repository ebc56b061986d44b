#!/usr/bin/env python3
"""A signal ends a program soon where there is no step to wait for, and a second one wherever it is.

    test_stopping.py SOURCE BUILD [names of tests]
"""
import os
import pathlib
import re
import signal
import time

import training

NCF = training.BUILD / "bin" / "train_ncf"
SLOW_DATA = ["--data", "synthetic:1000000,1000000", "--steps", 2]  # that takes hours to make up


class Stopping(training.Training):
    def wait_for(self, condition, run, what):
        end = time.monotonic() + training.SECONDS
        while not condition():
            self.assertTrue(run.running(), f"ended before {what}: {run.err()}")
            self.assertLess(time.monotonic(), end, f"waited too long for {what}")
            time.sleep(0.01)

    def takes_signals(self, name, ranks):
        """Whether so many processes of this program have blocked SIGTERM on their main threads."""
        found = 0
        for pid in training.survivors():
            try:
                if os.path.basename(os.readlink(f"/proc/{pid}/exe")) != name:
                    continue
                status = pathlib.Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            found += int(re.search(r"SigBlk:\s*(\w+)", status)[1], 16) >> (signal.SIGTERM - 1) & 1
        return found == ranks

    def test_before_the_first_step(self):
        for how, ranks, number in (("plain", 1, signal.SIGINT), ("plain", 1, signal.SIGTERM), ("launch", 2, signal.SIGTERM),
                                   ("plain", 1, signal.SIGHUP), ("threads", 2, signal.SIGUSR1),
                                   ("plain", 1, signal.SIGUSR2), ("launch", 2, signal.SIGUSR2),
                                   ("plain", 1, signal.SIGXCPU), ("launch", 2, signal.SIGXCPU)):
            with self.subTest(how=how, ranks=ranks, signal=number):
                run = self.start(SLOW_DATA, ranks=ranks, how=how, program=NCF)
                self.wait_for(lambda: self.takes_signals("train_ncf", 1 if how == "threads" else ranks), run, "its start")
                time.sleep(0.3)
                run.process.send_signal(number)
                ended = run.wait(5)
                self.assertEqual(ended.code, 128 + number, ended)
                self.assert_one_line(ended, f"^stopped by signal {number:d} before the first step$")

    def test_a_job_with_checkpoints_is_asked_for_again(self):
        for flag in ("--checkpoint-dir", "--out"):
            for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGXCPU):
                with self.subTest(flag=flag, signal=number):
                    run = self.start([*SLOW_DATA, flag, self.dir / "kept"], program=NCF)
                    self.wait_for(lambda: self.takes_signals("train_ncf", 1), run, "its start")
                    time.sleep(0.3)
                    run.process.send_signal(number)
                    self.assertEqual(run.wait(5).code, 75)

    def in_a_long_step(self):
        """A run whose first step takes minutes and has begun."""
        metrics = self.dir / "metrics.jsonl"
        metrics.unlink(missing_ok=True)
        run = self.start(["--model", "resnet18", "--data", "synthetic:3,64,64,10,65536", "--global-batch", 65536, "--shards",
                          4096, "--steps", 1, "--metrics", metrics], how="plain")
        self.wait_for(metrics.exists, run, "the first step")
        time.sleep(1)
        return run

    def test_a_second_one(self):
        for first, second in ((signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT)):
            with self.subTest(first=first, second=second):
                run = self.in_a_long_step()
                run.process.send_signal(first)
                time.sleep(1)
                self.assertTrue(run.running(), f"did not wait for its step: {run.err()}")
                run.process.send_signal(second)
                ended = run.wait(5)
                self.assertEqual(ended.code, 128 + second, ended)
                self.assert_one_line(ended, f"^stopped by signal {second:d} for the second time; steps since")

    def test_the_same_wish_twice(self):
        """What a scheduler says before its last word, and what comes twice from one key, are no second wish."""
        run = self.in_a_long_step()
        for number, pause in ((signal.SIGUSR1, 0.5), (signal.SIGTERM, 0.05), (signal.SIGTERM, 0.5), (signal.SIGUSR1, 0.5)):
            run.process.send_signal(number)
            time.sleep(pause)
        self.assertTrue(run.running(), run.err())
        run.process.kill()
        run.wait()


if __name__ == "__main__":
    training.main()
