#!/usr/bin/env python3
"""The example programs besides train_classifier: same bits on any ranks, they resume, they learn, they say what is wrong.

    test_examples.py SOURCE BUILD [names of tests]
"""
import pathlib
import re
import struct
import sys
import zlib

import training

TEXT = pathlib.Path(sys.argv[1]).resolve() / "README.md"
# The smallest job of each program in which everything takes part.
JOBS = {
    "train_gan": ["--data", "synthetic:1,8,12,2,96", "--global-batch", 16],
    "train_trees": ["--data", "synthetic:6", "--global-batch", 16, "--clip-norm", 1],
    "train_ncf": ["--data", "synthetic:40,120", "--global-batch", 64],
    "train_gnmt": ["--data", "reversal:20,8,80", "--model", "gnmt:2,16", "--global-batch", 16, "--dropout", 0.1],
    "user_op": ["--global-batch", 64],
    "user_hook": ["--data", "synthetic:1,8,8,4,256", "--global-batch", 64],
    "train_gpt": ["--data", f"text:{TEXT}", "--model", "gpt:layers=2,width=32,heads=2,context=16", "--global-batch", 16,
                  "--dropout", 0.1],
}
WORLDS = [dict(ranks=2), dict(ranks=4, how="threads"), dict(ranks=3)]


class Examples(training.Training):
    def run_example(self, name, flags, code=0, **where):
        return self.run_to_end(flags, code=code, program=training.BUILD / "bin" / name, **where)

    def test_same_bits(self):
        for name, flags in JOBS.items():
            job = [*flags, "--shards", 4, "--steps", 3, "--digest-every", 1]
            runs = []
            for i, where in enumerate([dict(how="plain"), *WORLDS]):
                metrics = self.dir / f"{name}{i}.jsonl"
                ended = self.run_example(name, [*job, "--metrics", metrics], **where)
                said = re.sub("(?m)^(throughput|metrics): .*$|^(epoch|link:) .*\n", "", ended.out)
                runs.append((said, training.without_times(training.read_metrics(metrics))))
                with self.subTest(name, **where):
                    self.assertEqual(runs[-1], runs[0])
            self.assertEqual(len(set(line["digest"] for line in runs[0][1])), 3, "a step that changes nothing")
            self.assertTrue([key for key in runs[0][1][-1] if key.startswith("eval_")], runs[0])

    def test_bfloat16(self):
        for name, flags in JOBS.items():
            with self.subTest(name):
                job = [*flags, "--shards", 2, "--steps", 2, "--dtype", "bfloat16"]
                one = self.run_example(name, job, how="plain").digest
                self.assertEqual(self.run_example(name, job, ranks=2, how="threads").digest, one)

    def test_resume(self):
        for name, flags in JOBS.items():
            with self.subTest(name):
                # The learning rate of a schedule depends on the steps of the whole run.
                job = [*flags, "--shards", 2, "--schedule", "constant"]
                whole = self.run_example(name, [*job, "--steps", 4], how="plain")
                keep = ["--checkpoint-dir", self.dir / name]
                self.run_example(name, [*job, *keep, "--steps", 2], how="plain")
                self.assertEqual(self.run_example(name, [*job, *keep, "--steps", 4], ranks=2).digest, whole.digest)

    def test_gan_draws_what_it_made(self):
        self.run_example("train_gan", ["--data", "synthetic:3,8,12,2,64", "--epochs", 2, "--global-batch", 32, "--out",
                                       self.dir / "out"], how="plain")
        for epoch in (1, 2):
            png = (self.dir / "out" / f"samples-000{epoch}.png").read_bytes()
            self.assertEqual(png[:8], b"\x89PNG\r\n\x1a\n")
            chunks, at = {}, 8
            while at < len(png):
                length, = struct.unpack(">I", png[at:at + 4])
                kind, content = png[at + 4:at + 8], png[at + 8:at + 8 + length]
                self.assertEqual(struct.unpack(">I", png[at + 8 + length:at + 12 + length])[0], zlib.crc32(kind + content))
                chunks[kind] = content
                at += 12 + length
            self.assertEqual(struct.unpack(">IIBBBBB", chunks[b"IHDR"]), (8 * 12, 8 * 8, 8, 2, 0, 0, 0))
            pixels = zlib.decompress(chunks[b"IDAT"])
            self.assertEqual(len(pixels), 64 * (1 + 96 * 3))
            self.assertEqual(set(pixels[::1 + 96 * 3]), {0})
            self.assertGreater(len(set(pixels)), 10)

    def learned(self, name, flags, pattern):
        ended = self.run_example(name, flags, how="plain")
        self.assertRegex(ended.out, pattern)
        return float(re.search(pattern, ended.out)[1])

    def test_they_learn(self):
        self.assertGreater(self.learned("train_trees", ["--epochs", 4], r"on trees up to four times as large: ([\d.]+) %"), 95)
        self.assertGreater(self.learned("train_ncf", [], r"hit rate at 10 of 100: ([\d.]+) %"), 75)
        snake, relu = (self.learned("user_op", ["--model", model], r"test error: ([\d.]+)") for model in ("snake", "relu"))
        self.assertLess(snake, relu / 4)
        self.assertGreater(self.learned("train_gnmt", ["--data", "reversal:10,6,8000"],
                                        r"translations without a fault: ([\d.]+) %"), 90)
        text = self.dir / "text"
        text.write_text("the quick brown fox jumps over the lazy dog\n" * 200)
        small = ["--model", "gpt:layers=2,width=64,heads=2,context=32", "--data", f"text:{text}"]
        self.assertLess(self.learned("train_gpt", [*small, "--steps", 150, "--lr", 3e-3], r"perplexity ([\d.]+)"), 1.5)

    def test_movielens(self):
        folder = self.dir / "ml"
        folder.mkdir()
        rows = [(10 * u, 7 * i + u % 2, 1 + i % 5, 1000 - i) for u in range(30) for i in range(20)]
        (folder / "u.data").write_text("".join(f"{u}\t{i}\t{r}\t{t}\n" for u, i, r, t in rows))
        short = ["--data", f"movielens:{folder}", "--steps", 2, "--global-batch", 32]
        tabs = self.run_example("train_ncf", short, how="plain")
        self.assertIn("of 30 users", tabs.out)
        (folder / "u.data").unlink()
        (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" +
                                            "".join(f"{u},{i},{r}.5,{t}\n" for u, i, r, t in rows))
        self.assertEqual(self.run_example("train_ncf", short, how="plain").digest, tabs.digest)
        table = (folder / "ratings.csv").read_bytes()
        for content in (b"\xef\xbb\xbf" + table, table + b"\n", table.replace(b"\n", b"\r\n") + b"\r\n"):
            (folder / "ratings.csv").write_bytes(content)  # as spreadsheets save it
            self.assertEqual(self.run_example("train_ncf", short, how="plain").digest, tabs.digest)
        (folder / "ratings.dat").write_text("".join(f"{u}::{i}::{r}::{t}\n" for u, i, r, t in rows))
        self.assertEqual(self.run_example("train_ncf", short, how="plain").digest, tabs.digest)
        with open(folder / "ratings.dat", "a") as file:
            file.write("8::many\n")
        self.refused("train_ncf", 3, short, f"^{folder}/ratings.dat:601: '8::many' is not user, item")

    def test_tokens(self):
        tokens = self.dir / "tokens"
        tokens.write_bytes(struct.pack("<2000H", *(i % 50257 * 25 for i in range(2000))))
        small = ["--model", "gpt:layers=1,width=16,heads=1,context=8", "--steps", 2, "--global-batch", 4, "--warmup-steps", 0]
        ended = self.run_example("train_gpt", [*small, "--data", f"tokens:{tokens}"], how="plain")
        self.assertRegex(ended.out, r"sample:10( \d+){32}\n")
        tokens.write_bytes(b"\xff" * 4000)
        self.refused("train_gpt", 3, [*small, "--data", f"tokens:{tokens}"], "token \\d+ is 65535, but .* 50257")

    def refused(self, name, code, flags, pattern):
        for where in (dict(how="plain"), dict(ranks=2, how="threads")):
            with self.subTest(name, flags=flags, **where):
                ended = self.run_example(name, flags, code=code, **where)
                self.assert_one_line(ended, pattern)

    def test_refusals(self):
        for name, code, flags, pattern in (
                ("train_gan", 2, ["--data", "synthetic:1,10,12,2,64"], "multiples of 4, this data has 10x12"),
                ("train_gan", 3, ["--data", "idx:/no/such/folder"], "^/no/such/folder: no such directory"),
                ("train_trees", 2, ["--data", "synthetic:1"], "'synthetic:1' is not synthetic\\[:LEAVES\\]"),
                ("train_trees", 2, ["--data", "idx:x"], "'idx:x' is not synthetic"),
                ("train_ncf", 2, ["--data", "synthetic:5"], "'synthetic:5' is not one of movielens:DIR, synthetic"),
                ("train_ncf", 2, ["--data", "synthetic:5,100"], "'synthetic:5,100': 100 items are too few to find one among 99 others; use at least 101"),
                ("train_ncf", 2, ["--data", "synthetic:5,60x"], "'synthetic:5,60x' is not one of"),
                ("train_ncf", 2, ["--model", "neumf:"], "'neumf:' is not neumf\\[:FACTORS\\]"),
                ("train_ncf", 3, ["--data", "movielens:/no/such"], "^/no/such: there is no u.data"),
                ("train_gnmt", 2, ["--data", "reversal:1,6,10"], "'reversal:1,6,10' is not reversal or reversal:WORDS"),
                ("train_gnmt", 2, ["--model", "gnmt:1,3"], "'gnmt:1,3' is not tiny, gnmt or gnmt:LAYERS,WIDTH"),
                ("user_op", 2, ["--model", "gelu"], "gelu: there is no such activation; use snake or relu"),
                ("user_op", 2, ["--data", "idx:x"], "idx:x: this program has only wave"),
                ("train_gpt", 2, ["--data", "words:x"], "'words:x' is not one of text:FILE, tokens:FILE"),
                ("train_gpt", 3, ["--data", "text:/no/such"], "^/no/such: No such file or directory; --data text:FILE"),
                ("train_gpt", 3, ["--data", "tokens:/no/such"], "^/no/such: No such file or directory; --data tokens:FILE"),
                ("train_gpt", 3, ["--data", "text:/"], "^/: .*; --data text:FILE"),
                ("train_gpt", 3, ["--data", f"text:{TEXT}", "--model", "gpt:context=9999"], "README.md: \\d+ tokens are too few for windows of 9999"),
                ("train_gpt", 2, ["--data", f"text:{TEXT}", "--model", "gpt:layers=1000000"],
                 "layers=1000000': 198272\\d{6} parameters .* need (3172.4 GB on 1 rank|6344.7 GB on 2 ranks) of .* has [\\d.]+ GB left; use"),
                ("train_gnmt", 2, ["--model", "gnmt:100,100000"], " 18020\\d{9} parameters .* GB left; use"),
                ("train_ncf", 2, ["--model", "neumf:4096", "--data", "synthetic:4,1000000"], "parameters .* GB left; use"),
                ("train_gpt", 2, ["--model", "gpt3"], "'gpt3': there is no such model; use nano"),
                ("train_gpt", 2, ["--model", "gpt:depth=3"], "'depth=3' is none of its sizes; use"),
                ("train_gpt", 2, ["--model", "gpt:layers=x"], "'layers=x' is not a whole number from 1"),
                ("train_gpt", 2, ["--model", "gpt:heads=3"], "width 128 does not divide into 3 heads")):
            self.refused(name, code, [*flags, "--global-batch", 4, "--steps", 2], pattern)

    def test_flags_without_use(self):
        for name, flags in (("train_gan", ["--clip-norm", 1]), ("train_gan", ["--model", "mlp"]), ("train_trees", ["--model", "mlp"]),
                            ("user_op", ["--clip-norm", 1]), ("train_ncf", ["--dropout", 0.1]), ("train_gpt", ["--augment"]),
                            ("first_program", ["--model", "mlp"]), ("first_program", ["--lr", 0.2])):
            with self.subTest(name, flags=flags):
                ended = self.run_example(name, flags, code=2, how="plain")
                self.assert_one_line(ended, f"^{flags[0]}: this program has no use for it$")


if __name__ == "__main__":
    training.main()
