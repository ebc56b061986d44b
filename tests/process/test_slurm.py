#!/usr/bin/env python3
"""Jobs under a real Slurm: the batch script's job has the bits of one rank, also when it is requeued in the middle.

    test_slurm.py SOURCE BUILD [names of tests]
"""
import pathlib
import re
import subprocess
import sys

import training

ROOT = pathlib.Path(sys.argv[1]).resolve()
LOCAL, TRAIN_SBATCH, DEBUG_SBATCH = (str(ROOT / "cluster" / "slurm" / name)
                                     for name in ("local.py", "train.sbatch", "debug.sbatch"))
JOB = ["--model", "lenet", "--data", "synthetic:1,28,28,10,512", "--global-batch", "64", "--shards", "4",
       "--optimizer", "adamw", "--lr", "0.001", "--clip-norm", "1"]
SECONDS = 240
LONG_JOB = 2500  # steps: long enough to be met in the middle


def under_slurm(script, nodes=2):
    """A shell script, with Slurm's commands at hand."""
    return subprocess.run([LOCAL, "--nodes", str(nodes), "--", "bash", "-c", script], env=training.environment(),
                          capture_output=True, text=True, timeout=SECONDS)


def digest_of(text):
    found = re.findall(r"^digest step=(\d+) sha256=(\w+)$", text, re.M)
    return found[-1] if found else None


class Slurm(training.Training):
    @classmethod
    def setUpClass(cls):
        tried = under_slurm("srun -N2 -n2 hostname")
        if tried.returncode == 69:  # not installed, or not allowed
            print(f"skipped: {tried.stderr.strip()}")
            sys.exit(77)
        assert sorted(tried.stdout.split()) == ["h1", "h2"], tried

    def alone(self, steps):
        ended = self.run_to_end([*JOB, "--steps", steps], how="plain")
        return digest_of(ended.out)

    def sbatch(self, *more, steps, wait="-W"):
        output, checkpoints = self.dir / "job.out", self.dir / "checkpoints"
        job = " ".join([training.TRAIN, *JOB, "--steps", str(steps), "--checkpoint-dir", str(checkpoints), *more])
        return f"sbatch --parsable {wait} --output {output} {TRAIN_SBATCH} {job}", output, checkpoints

    def test_two_nodes_have_the_bits_of_one_rank(self):
        command, output, _ = self.sbatch(steps=6)
        ran = under_slurm(command)
        self.assertEqual(ran.returncode, 0, f"{ran}\n{output.read_text() if output.exists() else ''}")
        self.assertIn("2 ranks on h[1-2]", output.read_text())
        self.assertEqual(digest_of(output.read_text()), self.alone(6))

    def test_more_tasks_than_nodes(self):
        command, output, _ = self.sbatch(steps=6)
        ran = under_slurm(command.replace("--parsable", "--parsable --ntasks-per-node=2"))
        self.assertEqual(ran.returncode, 0, f"{ran}\n{output.read_text() if output.exists() else ''}")
        self.assertIn("4 ranks on h[1-2]", output.read_text())
        self.assertEqual(digest_of(output.read_text()), self.alone(6))

    def interrupted(self, how):
        """A long job to which `how` happens at its first checkpoint, when it is over: what scontrol and it say."""
        command, output, checkpoints = self.sbatch("--checkpoint-every", "50", steps=LONG_JOB, wait="")
        ran = under_slurm(f"""
            job=$({command})
            for i in $(seq 300); do ls -d {checkpoints}/step-* >/dev/null 2>&1 && break; sleep 0.2; done
            {how} $job
            for i in $(seq 600); do [ -z "$(squeue -h -j $job -o %T 2>/dev/null)" ] && break; sleep 0.2; done
            scontrol show job $job | tr ' ' '\\n' | grep -E '^(JobState|Restarts)='""")
        said = output.read_text() if output.exists() else ""
        self.assertIn("JobState=COMPLETED", ran.stdout, f"{ran}\n{said}")
        self.assertIn("start 0,", said)
        self.assertIn("start 1,", said)
        self.assertRegex(said, r"going on from \S+, after step \d+", said)
        self.assertEqual(digest_of(said), self.alone(LONG_JOB))
        return ran.stdout, said

    def test_a_requeued_job_goes_on(self):
        self.assertIn("Restarts=1", self.interrupted("scontrol requeue")[0])

    def test_a_job_that_is_told_to_stop_queues_again(self):
        self.assertIn("stopped after a checkpoint; the job queues again", self.interrupted("scancel -s USR1")[1])

    def test_debugging_replays_all_ranks_in_one_process(self):
        output = self.dir / "debug.out"
        job = " ".join([training.TRAIN, *JOB, "--steps", "6"])
        ran = under_slurm(f"RANKS=4 sbatch -W --output {output} {DEBUG_SBATCH} {job}")
        self.assertEqual(ran.returncode, 0, f"{ran}\n{output.read_text() if output.exists() else ''}")
        self.assertEqual(digest_of(output.read_text()), self.alone(6))

    def test_without_a_program_it_says_so(self):
        output = self.dir / "job.out"
        ran = under_slurm(f"sbatch -W --output {output} {TRAIN_SBATCH}")
        self.assertEqual(ran.returncode, 2, ran)
        self.assertIn("say which program to run", output.read_text())


if __name__ == "__main__":
    training.main()
