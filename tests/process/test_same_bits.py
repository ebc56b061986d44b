#!/usr/bin/env python3
"""The same job gives the same bits on any number of ranks, however they are started and whatever may be tuned.

    test_same_bits.py SOURCE BUILD [names of tests]        TRIREME_LONG=1: more steps, and every variant with every model

Compared are the digest of every step and all of the metrics but times: loss, accuracies, norm of the gradient.
"""
import os
import re
import sys
import unittest

import training
from training import LONG

SMALL = "synthetic:1,16,16,10,960"
# Everything that draws random numbers or looks at the whole batch is on.
COMMON = ["--global-batch", 64, "--shards", 4, "--digest-every", 1, "--augment", "--dropout", 0.2, "--clip-norm", 1]

# name: (where it runs, further flags). One rank without a launcher is what all are compared with.
WORLDS = {
    "2 ranks": (dict(ranks=2), []),
    "3 ranks": (dict(ranks=3), []),
    "4 ranks": (dict(ranks=4), []),
}
TUNING = {
    "1 rank, launched": (dict(ranks=1), []),
    "2 ranks by mpirun": (dict(ranks=2, how="mpirun"), []),
    "2 ranks, no overlap": (dict(ranks=2), ["--overlap", "off"]),
    "1 rank, no overlap": (dict(how="plain"), ["--overlap=off"]),
    "3 ranks, no overlap, small buckets": (dict(ranks=3), ["--overlap=false", "--bucket-mb", 0.1]),
    "4 ranks, small buckets": (dict(ranks=4), ["--bucket-mb", 0.1]),
    "2 ranks, one bucket": (dict(ranks=2), ["--bucket-mb", 25, "--overlap", "on"]),
    "1 rank, tiny buckets": (dict(how="plain"), ["--bucket-mb", 0.001]),
    "3 ranks, optimizer sharded": (dict(ranks=3), ["--zero", 1]),
    "4 threads, optimizer sharded": (dict(ranks=4, how="threads"), ["--zero", 1, "--bucket-mb", 0.1]),
    "1 rank, optimizer sharded": (dict(how="plain"), ["--zero", 1]),
    "3 ranks, gradients shuffled": (dict(ranks=3), ["--shuffle-ready", 7, "--bucket-mb", 0.1]),
    "1 rank, gradients shuffled": (dict(how="plain"), ["--shuffle-ready", 8]),
    "4 threads": (dict(ranks=4, how="threads"), []),
    "3 threads": (dict(ranks=3, how="threads"), ["--backend", "local"]),
    "replay of 4 ranks": (dict(how="plain"), ["--replay-ranks", 4]),
    "2 ranks, no loader workers": (dict(ranks=2), ["--loader-workers", 0]),
    "1 rank, 3 loader workers": (dict(how="plain"), ["--loader-workers", 3]),
}


class SameBits(training.Training):
    def train(self, flags, **where):
        """(step -> digest, metrics without times)"""
        metrics = self.dir / f"metrics{self.runs}.jsonl"
        ended = self.run_to_end([*COMMON, *flags, "--metrics", metrics], **where)
        return ended.digests, training.without_times(training.read_metrics(metrics))

    def compare(self, flags, variants):
        digests, metrics = self.train(flags, how="plain")
        self.assertEqual(len(metrics), len(digests))
        self.assertEqual(len(set(digests.values())), len(digests), "a step that changes nothing")
        self.assertEqual([line["digest"] for line in metrics], list(digests.values()))
        self.assertIn("eval_accuracy", metrics[-1])
        for name, (where, more) in variants.items():
            with self.subTest(name):
                other_digests, other_metrics = self.train([*flags, *more], **where)
                self.assertEqual(other_digests, digests)
                self.assertEqual(other_metrics, metrics)
        return digests

    def steps(self, count):
        return ["--steps", count * 5 if LONG else count]

    @unittest.skipUnless(os.path.isdir(training.FASHION_MNIST), "the package dataset-fashion-mnist is not installed")
    def test_fashion_mnist(self):
        data = ["--data", "idx:" + training.FASHION_MNIST]
        self.compare([*data, "--model", "resnet8", *self.steps(4)], WORLDS)
        if LONG:
            for model in ("mlp", "lenet"):
                self.compare([*data, "--model", model, *self.steps(10)], {**WORLDS, **TUNING})

    def test_worlds_and_tuning(self):
        self.compare(["--data", SMALL, "--model", "mlp", *self.steps(8)], {**WORLDS, **TUNING})

    def test_communication_hooks(self):
        job = ["--data", SMALL, "--model", "mlp", *self.steps(4)]
        variants = {**WORLDS, **{name: TUNING[name] for name in ("replay of 4 ranks", "3 ranks, optimizer sharded")}}
        wide = self.compare(job, {})
        for hook in ("bf16", "fp16", "powersgd"):
            self.assertNotEqual(self.compare([*job, "--comm-hook", hook], variants), wide)

    def test_models(self):
        variants = {**WORLDS, **TUNING} if LONG else {
            **WORLDS, **{name: TUNING[name] for name in ("4 threads", "3 ranks, gradients shuffled", "replay of 4 ranks")}}
        for model, steps in (("lenet", 8), ("resnet8", 5)):
            with self.subTest(model):
                self.compare(["--data", SMALL, "--model", model, *self.steps(steps)], variants)

    def test_optimizers_and_schedules(self):
        flags = ["--data", SMALL, "--model", "resnet8", "--weight-decay", 0.01, "--label-smoothing", 0.1]
        variants = {"2 ranks": WORLDS["2 ranks"], "3 threads": TUNING["3 threads"],
                    "3 ranks, optimizer sharded": TUNING["3 ranks, optimizer sharded"]}
        self.compare([*flags, *self.steps(4), "--optimizer", "lamb", "--lr", 0.01], variants)
        self.compare([*flags, *self.steps(4), "--optimizer", "adamw", "--lr", 0.01, "--schedule", "cosine"], variants)
        self.compare([*flags, *self.steps(4), "--schedule", "onecycle"], variants)

    def test_synchronized_batch_norm(self):
        job = ["--data", SMALL, "--model", "resnet8", *self.steps(3), "--shards", 3, "--global-batch", 60, "--sync-batchnorm"]
        seen = [self.train(job, ranks=3, how=how)[0] for how in ("launch", "mpirun", "threads")]
        self.assertEqual(seen[1:], seen[:1] * 2)
        self.assertNotEqual(seen[0], self.train([*job, "--sync-batchnorm", "off"], ranks=3)[0])
        refused = self.run_to_end([*COMMON, *job], code=2, how="plain")
        self.assert_one_line(refused, "3 shards need 3 ranks, and there is 1; .* trireme launch --backend local -n 3")

    def test_resnet18(self):
        self.compare(["--data", "synthetic:3,16,16,10,96", "--model", "resnet18", *self.steps(2), "--global-batch", 16],
                     {"2 ranks": WORLDS["2 ranks"], "3 threads": TUNING["3 threads"]})

    def test_larger_models(self):
        few = ["--data", "synthetic:3,12,12,10,48", *self.steps(2), "--global-batch", 8, "--lr", 0.01]
        for model in ("alexnet", "vgg19", "resnet50", "mobilenet", "vit"):
            with self.subTest(model):
                self.compare([*few, "--model", model],
                             {"2 ranks": WORLDS["2 ranks"], "4 threads": TUNING["4 threads"]})

    def test_uneven_batches(self):
        """Epochs whose last batch does not cut evenly into the shards, or leaves some of them empty."""
        worlds = {f"{n} threads": (dict(ranks=n, how="threads"), []) for n in (2, 3, 5, 8)}
        worlds["3 ranks"] = (dict(ranks=3), ["--bucket-mb", 0.01])
        worlds["replay of 5 ranks"] = (dict(how="plain"), ["--replay-ranks", 5])
        for last in (61, 5, 1):  # samples in the last of three batches
            for model in ("mlp", "resnet8"):
                with self.subTest(f"{model}, last batch of {last}"):
                    digests = self.compare(["--data", f"synthetic:1,12,12,5,{128 + last}", "--model", model,
                                            "--epochs", 2, "--shards", 8], worlds)
                    self.assertEqual(len(digests), 6)

    def test_what_matters_changes_bits(self):
        """The digest would notice: each of these is another job."""
        flags = ["--data", SMALL, "--model", "mlp", "--steps", 3]
        seen = {"as it is": self.train(flags, how="plain")[0]["3"]}
        for more in (["--seed", 2], ["--augment", "off"], ["--dropout", 0.3], ["--clip-norm", 0.5], ["--lr", 0.05],
                     ["--global-batch", 128], ["--shards", 8], ["--momentum", 0.8], ["--optimizer", "adamw"]):
            seen[" ".join(map(str, more))] = self.train([*flags, *more], how="plain")[0]["3"]
        self.assertEqual(len(set(seen.values())), len(seen), seen)

    def test_fastest_promises_nothing_and_says_so(self):
        ended = self.run_to_end([*COMMON, "--data", SMALL, "--model", "mlp", "--steps", 3, "--reduction", "fastest"], ranks=3)
        self.assertEqual(len(ended.digests), 3)
        self.assertEqual(len(re.findall("bits are not promised", ended.err)), 1, ended)


if __name__ == "__main__":
    training.main()
