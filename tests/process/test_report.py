#!/usr/bin/env python3
"""Pages with pictures, the simulator and the scaling benchmark, each on what a short run has written.

    test_report.py SOURCE BUILD [names of tests]
"""
import csv
import json
import os
import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree

import training

SCALING = str(pathlib.Path(sys.argv[1]).resolve() / "cluster" / "scaling" / "run.sh")
JOB = ["--model", "lenet", "--data", "synthetic:1,28,28,10,512", "--global-batch", 32, "--threads", 1, "--eval-every", 0]
SVG = "{http://www.w3.org/2000/svg}"


def run(command, **environment):
    ended = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=training.SECONDS,
                           env=dict(training.environment(), **environment))
    return training.Ended(ended.returncode, ended.stdout, ended.stderr)


class Report(training.Training):
    def traced(self, steps=8, ranks=2):
        folder = self.dir / "run"
        folder.mkdir()
        self.run_to_end([*JOB, "--steps", steps, "--bucket-mb", 0.05, "--metrics", folder / "metrics.jsonl", "--trace",
                         folder / "trace"], ranks=ranks)
        return folder

    def pictures(self, page):
        """The titles of a page's pictures. It must be well-formed, and need nothing from elsewhere."""
        text = page.read_text(encoding="utf-8")
        tree = xml.etree.ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>"))
        for element in tree.iter():
            self.assertNotRegex(element.tag, r"(script|link|img|image|iframe|object|use)$")
            for name in element.attrib:
                self.assertNotRegex(name, r"(src|href|^on\w+)$")
        self.assertNotRegex(text.replace('xmlns="http://www.w3.org/2000/svg"', ""), r"https?:|url\(|@import|\bnan\b|\binf\b")
        return {picture.attrib["aria-label"]: picture for picture in tree.iter(SVG + "svg")}

    def test_a_run(self):
        folder = self.traced()
        ended = run([training.TRIREME, "report", folder])
        self.assertEqual((ended.code, ended.err), (0, ""), ended)
        self.assertEqual(ended.out, f"report: {folder}/report.html\n")
        found = self.pictures(folder / "report.html")
        timeline = next(title for title in found if title.startswith("Step "))
        self.assertEqual(set(found) - {timeline}, {"Loss", "Throughput", "Parts of a step", "Communication"})
        told = [title.text for title in found[timeline].iter(SVG + "title")]
        for what in (r"^forward shard 0: ", r"^forward shard 1: ", r"^backward: ", r"^sum bucket 0 .*enqueued at", r"^sum loss: ",
                     r"^optimizer: "):
            self.assertTrue(any(re.search(what, text) for text in told), f"no {what} in {told}")
        # Metrics alone, and traces alone.
        (folder / "metrics.jsonl").rename(self.dir / "metrics.jsonl")
        self.assertEqual(run([training.TRIREME, "report", folder, "--out", self.dir / "a" / "b.html"]).code, 0)
        self.assertEqual(set(self.pictures(self.dir / "a" / "b.html")), {timeline})
        self.assertEqual(run([training.TRIREME, "report", self.dir, "--out", self.dir / "c.html"]).code, 0)
        self.assertEqual(len(self.pictures(self.dir / "c.html")), 4)

    def test_a_trace_is_for_its_viewer(self):
        for rank in (0, 1):
            trace = json.loads((self.traced() if rank == 0 else self.dir / "run").joinpath("trace", f"trace-rank-{rank}.json").read_text())
            spans = [event for event in trace["traceEvents"] if event["ph"] == "X"]
            steps = [span for span in spans if span["cat"] == "step"]
            self.assertEqual([span["name"] for span in steps], [f"step {i + 1}" for i in range(8)])
            sums = [span for span in spans if span["name"].startswith("sum bucket")]
            for span in sums:
                self.assertEqual(set(span["args"]), {"bytes", "queued_us"}, span)
                self.assertGreater(span["args"]["bytes"], 0)
            last = [span["args"]["bytes"] for span in sums if steps[-1]["ts"] <= span["ts"] < steps[-1]["ts"] + steps[-1]["dur"]]
            self.assertGreater(len(last), 1)
            # Parameters of LeNet, padding and notes aside.
            self.assertTrue(4 * 61706 <= sum(last) <= 4 * 61706 * 1.02, last)

    def simulated(self, *flags):
        """The table: ranks -> its row's words."""
        ended = run([training.TRIREME, "simulate", *flags])
        self.assertEqual((ended.code, ended.err), (0, ""), ended)
        rows = [line.split() for line in ended.out.splitlines() if re.match(r" *\d+ ", line)]
        return ended.out, {int(row[0]): row for row in rows}

    def test_the_simulator(self):
        trace = self.traced()
        out, rows = self.simulated("--trace", trace, "--ranks", "2,8,64", "--link", "10GbE", "--spread", "0.05")
        self.assertRegex(out, r"(?m)^traced: 2 ranks, \d steps of [0-9.]+ ms")
        self.assertEqual(list(rows), [2, 8, 64])
        efficiencies = [float(rows[ranks][6]) for ranks in rows]
        self.assertEqual(efficiencies, sorted(efficiencies, reverse=True))
        self.assertEqual(self.simulated("--trace", trace / "trace", "--ranks", "2,8,64", "--spread", "0.05")[0], out,
                         "the same seed gives the same")
        self.assertNotEqual(self.simulated("--trace", trace, "--ranks", "2,8,64", "--spread", "0.05", "--seed", 2)[0], out)
        # A link that costs next to nothing, and one that costs everything.
        alone = self.simulated("--trace", trace, "--ranks", 8, "--link", "1ns,1000GB/s", "--spread", 0)[1][8]
        self.assertGreater(float(alone[6]), 0.5)  # threads have to wake up all the same
        slow = self.simulated("--trace", trace, "--ranks", 8, "--link", "1s,1GB/s", "--spread", 0)[1][8]
        self.assertLess(float(slow[6]), 0.01)

    def test_wrong_flags(self):
        trace = self.traced(steps=3, ranks=1)
        empty, torn = self.dir / "empty", self.dir / "torn"
        empty.mkdir()
        torn.mkdir()
        text = (trace / "trace" / "trace-rank-0.json").read_text()
        (torn / "trace-rank-0.json").write_text(text[:len(text) // 2])
        (torn / "sub").mkdir()
        (torn / "sub" / "scaling.csv").write_text("mode,model\nweak\n")
        (torn / "zero").mkdir()
        (torn / "zero" / "scaling.csv").write_text("mode,model,link,run,ranks\nweak,mlp,1gbit,x,0\n")
        for code, said, command in (
                (2, r"simulate: --trace is required", ["simulate"]),
                (2, r"did you mean --link\?", ["simulate", "--trace", trace, "--linc", "IB"]),
                (2, r"--link '100Gbe'.*did you mean '100GbE'\?", ["simulate", "--trace", trace, "--link", "100Gbe"]),
                (2, r"--link trace: the trace is of 1 rank on one host", ["simulate", "--trace", trace, "--link", "trace"]),
                (2, r"--algorithm 'orderd'.*did you mean 'ordered'\?", ["simulate", "--trace", trace, "--algorithm", "orderd"]),
                (2, r"--ranks 0: must be from 1 to", ["simulate", "--trace", trace, "--ranks", "8,0"]),
                (2, r"--efficiency 2: must be from 0 to 1", ["simulate", "--trace", trace, "--efficiency", "2"]),
                (2, rf"'{empty}' holds no trace-rank-N.json", ["simulate", "--trace", empty]),
                (3, rf"{torn}/trace-rank-0.json:\d+: ", ["simulate", "--trace", torn]),
                (3, rf"{torn}/trace-rank-0.json:\d+: ", ["report", torn]),
                (3, rf"{torn}/sub/scaling.csv:2: 1 cells under a head of 2", ["report", torn / "sub"]),
                (3, rf"{torn}/zero/scaling.csv:2: ranks is '0', must be a number from 1 on", ["report", torn / "zero"]),
                (2, r"report: dir is required", ["report"]),
                (2, r"unknown argument '--ouf': did you mean --out\?", ["report", trace, "--ouf", "x"]),
                (2, rf"'{empty}' holds no metrics", ["report", empty]),
                (2, r"'/nowhere' is not a folder", ["report", "/nowhere"])):
            with self.subTest(command):
                ended = run([training.TRIREME, *command])
                self.assertEqual(ended.code, code, ended)
                self.assert_one_line(ended, said)
        for command in ("simulate", "report"):
            self.assertIn(f"trireme {command} [OPTIONS]", run([training.TRIREME, command, "--help"]).out)

    def test_the_scaling_benchmark(self):
        # Without the tools for emulated hosts, so that another test may have them.
        tools, out = self.dir / "tools", self.dir / "out"
        tools.mkdir()
        for name in ("mpirun", "orted", "ssh", "python3", "sh", "hostname", "dirname"):
            found = subprocess.run(["which", name], capture_output=True, text=True).stdout.strip()
            if found:
                os.symlink(found, tools / name)
        ended = run([SCALING, "--models", "lenet", "--ranks", "1,2", "--steps", 4, "--batch", 16, "--build", training.BUILD,
                     "--out", out], PATH=str(tools))
        self.assertEqual(ended.code, 0, ended)
        self.assertIn("no emulated hosts here", ended.out)
        with open(out / "scaling.csv", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual([(row["mode"], row["ranks"], row["global_batch"], row["link"]) for row in rows],
                         [("weak", "1", "16", "loopback"), ("weak", "2", "32", "loopback"), ("strong", "1", "32", "loopback"),
                          ("strong", "2", "32", "loopback")])
        for row in rows:
            self.assertAlmostEqual(float(row["samples_per_s"]) * float(row["step_ms"]) / 1e3 / int(row["global_batch"]), 1, 2)
            self.assertTrue(4 * 61706 <= int(row["bytes_per_step"]) <= 4 * 61706 * 1.02, row)
            self.assertTrue((out / row["run"] / "metrics.jsonl").exists())
            self.assertTrue((out / row["run"] / f"trace-rank-{int(row['ranks']) - 1}.json").exists())
        self.assertEqual([float(row["efficiency"]) for row in rows if row["ranks"] == "1"], [1, 1])
        two = rows[1]
        self.assertAlmostEqual(float(two["efficiency"]), float(two["samples_per_s"]) / 2 / float(rows[0]["samples_per_s"]), 2)
        found = self.pictures(out / "report.html")
        self.assertEqual({title for title in found if not title.startswith("Step ")},
                         {"Throughput", "Efficiency against the fewest ranks", "Communication in a step",
                          "Bytes over the network in a step"})
        self.assertEqual(len(found), 5)

    def test_wrong_flags_of_the_benchmark(self):
        for flags in (["--links", "fast"], ["--modes", "fair"], ["--ranks", "0"], ["--steps", "1"], ["--build", self.dir],
                      ["--ranks", "1,2,3", "--per-host", "2"]):
            with self.subTest(flags):
                ended = run([SCALING, "--build", training.BUILD, *flags])
                self.assertEqual(ended.code, 2, ended)


if __name__ == "__main__":
    training.main()
