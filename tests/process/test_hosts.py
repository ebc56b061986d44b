#!/usr/bin/env python3
"""Jobs over emulated hosts: the bits are those of one rank, and nothing is left of the hosts.

    test_hosts.py SOURCE BUILD [names of tests]
"""
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import training

HOSTS = str(pathlib.Path(sys.argv[1]).resolve() / "cluster" / "hosts.py")
JOB = ["--model", "lenet", "--data", "synthetic:1,28,28,10,512", "--global-batch", "48", "--shards", "6", "--steps", "4",
       "--digest-every", "1", "--optimizer", "adamw", "--lr", "0.001", "--clip-norm", "1"]


def over_hosts(flags, program=(training.TRAIN, *JOB), emulated=True, **environment):
    ran = subprocess.run([HOSTS, *flags, "--", *program], env=dict(training.environment(), **environment),
                         capture_output=True, text=True, timeout=training.SECONDS)
    # Else a job on this host alone would pass for one over several.
    assert not emulated or "no emulated hosts here" not in ran.stderr, ran
    return ran


def left():
    names = subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout.split()
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True).stdout
    return [name for name in names if re.fullmatch(r"trireme-h\d+", name)] + re.findall(r"trireme\d+", links)


class Hosts(training.Training):
    @classmethod
    def setUpClass(cls):
        tried = over_hosts(["--hosts", "2"], ["hostname"], emulated=False)
        if "no emulated hosts here" in tried.stderr:
            print(f"skipped: {tried.stderr.strip()}")
            sys.exit(77)
        assert sorted(tried.stdout.split()) == ["h1", "h2"], tried

    def test_the_bits_are_those_of_one_rank(self):
        alone = self.run_to_end(JOB, how="plain").digests
        self.assertEqual(len(alone), 4)
        for flags in (["--hosts", "2", "--rate", "1gbit"], ["--hosts", "2", "--per-host", "2", "--delay", "200us"],
                      ["--hosts", "3", "--per-host", "2"], ["--hosts", "5", "--loss", "0.1"]):
            with self.subTest(" ".join(flags)):
                ran = over_hosts(flags)
                self.assertEqual(ran.returncode, 0, ran)
                self.assertEqual(dict(re.findall(r"^digest step=(\d+) sha256=(\w+)$", ran.stdout, re.M)), alone)
                self.assertEqual(left(), [])

    def test_packed_messages_change_no_bit(self):
        alone = self.run_to_end(JOB, how="plain").digests
        sent = {}
        for wish in ("on", "off"):
            kept = self.dir / wish
            ran = over_hosts(["--hosts", "3"], [training.TRAIN, *JOB, "--compress-links", wish, "--checkpoint-dir", str(kept)])
            self.assertEqual(dict(re.findall(r"^digest step=(\d+) sha256=(\w+)$", ran.stdout, re.M)), alone, ran)
            sent[wish] = re.search(r"^link: .* a sum and .* MB/s over the ranks(?:\npacked: rank 0 sent ([0-9.]+) MB to other hosts as ([0-9.]+))?$",
                                   ran.stdout, re.M)
            told = subprocess.run([training.TRIREME, "checkpoint", "inspect", str(kept)], env=training.environment(),
                                  capture_output=True, text=True)
            self.assertIn("link: " + sent[wish][0].split(" over")[0].removeprefix("link: "), told.stdout, told)
        self.assertIsNone(sent["off"][1], sent)
        self.assertLess(float(sent["on"][2]), float(sent["on"][1]))
        for flags in (["--hosts", "3"], ["--hosts", "2", "--per-host", "2"]):
            ran = over_hosts(flags, [str(training.BUILD / "tests" / "ranks_comm_packed")])
            self.assertEqual(ran.returncode, 0, ran)

    def test_ranks_in_turn_on_hosts(self):
        alone = self.run_to_end(JOB, how="plain").digests
        ran = over_hosts(["--hosts", "2", "--per-host", "3"], OMPI_MCA_rmaps_base_mapping_policy="node")
        self.assertEqual(dict(re.findall(r"^digest step=(\d+) sha256=(\w+)$", ran.stdout, re.M)), alone, ran)

    def test_a_delay_is_one(self):
        slow, fast = (self.seconds_of(["--hosts", "2", *more]) for more in (["--delay", "5ms"], []))
        self.assertGreater(slow, fast + 4 * 3 * 0.005)

    def seconds_of(self, flags):
        begin = time.monotonic()
        ran = over_hosts(flags)
        self.assertEqual(ran.returncode, 0, ran)
        return time.monotonic() - begin

    def test_nothing_is_left_when_it_is_stopped(self):
        running = subprocess.Popen([HOSTS, "--hosts", "3", "--delay", "1ms", "--", "sleep", "60"],
                                   env=training.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        begin = time.monotonic()
        while len(left()) < 6 and time.monotonic() - begin < 20:
            time.sleep(0.1)
        second = over_hosts(["--hosts", "2"], ["hostname"])
        self.assertEqual(second.returncode, 1)
        self.assertIn("another run has its hosts", second.stderr)
        running.terminate()
        self.assertEqual(running.wait(30), 143)
        self.assertEqual(left(), [])
        self.assertEqual(training.survivors(), [])

    def test_a_job_that_is_stopped_keeps_a_checkpoint(self):
        for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
            with self.subTest(number):
                kept = self.dir / f"checkpoints{number}"
                running = subprocess.Popen(
                    [HOSTS, "--hosts", "2", "--per-host", "2", "--delay", "200us", "--", training.TRAIN, *JOB[:8],
                     "--steps", "100000", "--quiet", "--compress-links", "on", "--eval-every", "0", "--checkpoint-dir", str(kept),
                     "--checkpoint-every", "20"],
                    env=training.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                begin = time.monotonic()
                while not list(kept.glob("step-*")) and time.monotonic() - begin < 30:
                    time.sleep(0.1)
                newest = max(kept.glob("step-*"))
                running.send_signal(number)
                self.assertEqual(running.wait(40), code)
                self.assertEqual(left(), [])
                self.assertEqual(training.survivors(), [])
                self.assertGreater(max(kept.glob("step-*")), newest, "that of the step at which it was stopped")

    def test_without_namespaces_all_ranks_run_here(self):
        tools = self.dir / "tools"
        tools.mkdir()
        for name in ("mpirun", "orted", "ssh", "python3", "sh", "hostname"):
            found = subprocess.run(["which", name], capture_output=True, text=True).stdout.strip()
            if found:
                os.symlink(found, tools / name)
        ran = over_hosts(["--hosts", "2"], emulated=False, PATH=str(tools))
        self.assertEqual(ran.returncode, 0, ran)
        self.assertIn("no emulated hosts here", ran.stderr)
        self.assertEqual(dict(re.findall(r"^digest step=(\d+) sha256=(\w+)$", ran.stdout, re.M)),
                         self.run_to_end(JOB, how="plain").digests)

    def test_wrong_flags(self):
        for flags in (["--hosts", "0"], ["--delay", "soon"], ["--delay", "1.2.3ms"], ["--loss", "100"], ["--per-host", "0"],
                      ["--rate", "foo"], ["--rate", "0"], ["--rate", "-1"]):
            ran = over_hosts(flags)
            self.assertEqual(ran.returncode, 2, flags)


if __name__ == "__main__":
    training.main()
