#!/usr/bin/env python3
"""The progress line on a terminal: it fits, and is rewritten in place, however the ranks were started.

    test_progress.py SOURCE BUILD [names of tests]
"""
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios

import training

JOB = ["--model", "mlp", "--data", "synthetic:1,16,16,10,6400", "--global-batch", 64, "--shards", 2, "--steps", 300,
       "--eval-every", 0]


class Progress(training.Training):
    def shown(self, columns, arguments, env=None, **where):
        """What a terminal of so many columns gets on standard error."""
        screen, terminal = pty.openpty()
        fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        run = subprocess.Popen(training.command(arguments, **where), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=terminal, env=training.environment({"TERM": "xterm", **(env or {})}))
        os.close(terminal)
        text = b""
        while True:
            try:
                chunk = os.read(screen, 65536)
            except OSError:  # the other end is closed
                break
            if not chunk:
                break
            text += chunk
        os.close(screen)
        self.assertEqual(run.wait(training.SECONDS), 0, text)
        return text.decode(errors="replace")

    def test_it_fits_and_stays_in_one_line(self):
        for columns in (40, 60):
            for where in (dict(how="plain"), dict(ranks=2), dict(ranks=2, how="mpirun"), dict(ranks=2, how="threads")):
                with self.subTest(columns=columns, **where):
                    text = self.shown(columns, JOB, **where)
                    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
                    pieces = [piece.strip("\r\n") for piece in plain.split("\r\x1b[K") if " loss " in piece]
                    self.assertGreater(len(pieces), 1, f"not rewritten: {text!r}")
                    for piece in pieces:
                        first = piece.splitlines()[0]
                        self.assertLess(len(first), columns, f"{first!r} in {text!r}")
                    # The lines that stay are the end of the epochs: three of 100 steps.
                    self.assertEqual(len(re.findall(r"step [0-9/ ]+  loss [^\r\n]*\r*\n", plain)), 3, repr(text))

    def test_colours(self):
        self.assertIn("\x1b[32m[", self.shown(160, JOB, ranks=2))
        self.assertNotIn("\x1b[32m", self.shown(160, JOB, ranks=2, env={"NO_COLOR": "1"}))

    def test_a_file_gets_plain_lines(self):
        for where in (dict(how="plain"), dict(ranks=2), dict(ranks=2, how="mpirun")):
            self.assertNotIn("\x1b", self.run_to_end(JOB, **where).err)

    def test_help_fits(self):
        for columns in (60, 100):
            for program in ([training.TRAIN, "--help"], *([training.TRIREME, name, "--help"] for name in (
                    "launch", "doctor", "checkpoint", "report", "simulate")), [training.TRIREME, "checkpoint", "diff", "--help"],
                    [training.TRIREME, "help"]):
                with self.subTest(columns=columns, program=program):
                    ended = subprocess.run(program, capture_output=True, text=True,
                                           env=training.environment({"COLUMNS": str(columns)}))
                    self.assertEqual((ended.returncode, ended.stderr), (0, ""))
                    self.assertIn("\n\nUsage: ", ended.stdout)
                    self.assertRegex(ended.stdout, "-h,--help +Show this text and end\n")
                    self.assertLessEqual(max(map(len, ended.stdout.splitlines())), columns, ended.stdout)
        for name in ("launch", "doctor", "checkpoint", "report", "simulate"):
            texts = [subprocess.run([training.TRIREME, *words], capture_output=True, text=True, env=training.environment()).stdout
                     for words in (("help", name), (name, "--help"))]
            self.assertEqual(texts[0], texts[1])
        unknown = subprocess.run([training.TRIREME, "help", "lunch"], capture_output=True, text=True, env=training.environment())
        self.assertEqual((unknown.returncode, unknown.stderr),
                         (2, "trireme: unknown command 'lunch': did you mean 'trireme launch'?\n"))
        bare = subprocess.run([training.TRIREME], capture_output=True, text=True, env=training.environment())
        self.assertEqual(bare.returncode, 2)
        self.assertIn("Usage: trireme COMMAND", bare.stdout)
        self.assertEqual(bare.stderr, "trireme: a command is missing: 'trireme help' lists them\n")


if __name__ == "__main__":
    training.main()
