#!/usr/bin/env python3
"""Training that begins with weights from a file, in 16 bits, and under the profiler: test_init.py SOURCE BUILD."""
import pathlib
import re
import struct
import subprocess
import json
import os

import training

JOB = ["--data", "synthetic:1,6,6,4,64", "--model", "mlp", "--global-batch", 16, "--quiet", "--eval-every", 0]


def read(path):
    """Names, shapes and float32 numbers of a safetensors file."""
    content = pathlib.Path(path).read_bytes()
    length, = struct.unpack("<Q", content[:8])
    header = json.loads(content[8:8 + length])
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        begin, end = (8 + length + at for at in entry["data_offsets"])
        found[name] = entry["shape"], struct.unpack(f"<{(end - begin) // 4}f", content[begin:end])
    return found


def write(path, tensors):
    header, data = {}, b""
    for name, (shape, numbers) in tensors.items():
        content = struct.pack(f"<{len(numbers)}f", *numbers)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    pathlib.Path(path).write_bytes(struct.pack("<Q", len(text)) + text + data)


def transposed(shape, numbers):
    rows, columns = shape
    return [columns, rows], [numbers[r * columns + c] for c in range(columns) for r in range(rows)]


class Init(training.Training):
    def export(self, store):
        path = self.dir / f"{store}.safetensors"
        subprocess.run([training.TRIREME, "checkpoint", "export", str(self.dir / store), str(path)], check=True,
                       stdout=subprocess.DEVNULL)
        return path

    def weights_after(self, store, *flags, **where):
        """The model's weights once it has trained without learning."""
        self.run_to_end([*JOB, "--steps", 1, "--lr", 0, "--checkpoint-dir", self.dir / store, *flags], **where)
        return {name: t for name, t in read(self.export(store)).items() if ".optimizer" not in name}

    def setUp(self):
        super().setUp()
        self.run_to_end([*JOB, "--steps", 3, "--seed", 5, "--checkpoint-dir", self.dir / "trained"])
        self.file = self.export("trained")
        self.weights = {name: t for name, t in read(self.file).items() if ".optimizer" not in name}

    def test_a_folder_is_named_as_what_it_is(self):
        store = self.dir / "trained"
        for folder, pattern in ((store, "is a checkpoint: make a file of it with `trireme checkpoint export .* FILE`"),
                                (store / "step-00000003", "is a checkpoint: .* FILE`, or go on from it with --resume"),
                                (self.dir, "is a folder: name a safetensors file")):
            for where in (dict(how="plain"), dict(ranks=2)):
                ended = self.run_to_end([*JOB, "--steps", 1, "--init", folder], code=2, **where)
                self.assert_one_line(ended, f"^--init '{folder}': {pattern}")

    def test_files_that_are_pipes_without_a_writer(self):
        pipe = self.dir / "pipe"
        os.mkfifo(pipe)
        for code, flags in ((4, ["--init", pipe]), (2, ["--init", self.file, "--init-map", pipe]), (2, ["--config", pipe]),
                            (2, ["--metrics", pipe]), (2, ["--digest-trail", pipe])):
            ended = self.run_to_end([*JOB, "--steps", 1, "--patience", 1, *flags], code=code, how="plain", seconds=20)
            self.assert_one_line(ended, str(pipe))

    def test_an_export_is_what_training_begins_with(self):
        self.assertEqual(self.weights_after("one", "--init", self.file), self.weights)
        self.assertNotEqual(self.weights_after("none"), self.weights)
        for how in ("threads", "launch"):
            self.assertEqual(self.weights_after(how, "--init", self.file, "--shards", 2, ranks=2, how=how), self.weights)

    def test_a_resumed_job_keeps_its_own(self):
        first = self.weights_after("same")
        again = self.weights_after("same", "--init", self.file, "--steps", 2)
        self.assertEqual(first, again)

    def test_a_map_renames_and_transposes(self):
        theirs = {}
        for name, (shape, numbers) in self.weights.items():
            name = re.sub(r"model\.(\d+)\.", r"net.layer\1.", name)
            theirs[name] = transposed(shape, numbers) if len(shape) == 2 else (shape, numbers)
        write(self.dir / "theirs", theirs)
        names = self.dir / "map"
        names.write_text("{i}.weight  net.layer{i}.weight  transpose\n{i}.bias net.layer{i}.bias\n")
        flags = ["--init", self.dir / "theirs"]
        self.assertEqual(self.weights_after("mapped", *flags, "--init-map", names), self.weights)
        ended = self.run_to_end([*JOB, "--steps", 1, *flags], code=4)
        self.assert_one_line(ended, r"6 missing: .*6 unexpected: .*net\.layer\d\.bias")

    def test_what_cannot_be_read_is_said_in_one_line(self):
        job = [*JOB, "--steps", 1]
        self.assert_one_line(self.run_to_end([*job, "--init", "nowhere"], code=2), "--init 'nowhere': there is no such")
        self.assert_one_line(self.run_to_end([*job, "--init-map", "m"], code=2), "--init-map 'm': .* without --init")
        self.assert_one_line(self.run_to_end([*job, "--init", self.file, "--init-map", "nowhere"], code=2), "nowhere")
        (self.dir / "cut").write_bytes(self.file.read_bytes()[:-1])
        ended = self.run_to_end([*job, "--init", self.dir / "cut", "--shards", 2], code=4, ranks=2, how="threads")
        self.assert_one_line(ended, r"/cut' is not a safetensors file that can be read: its tensors end at byte \d+")


class Modes(training.Training):
    def test_bfloat16_has_the_same_bits_on_any_ranks_and_others_than_float32(self):
        job = [*JOB, "--steps", 4, "--shards", 2]
        one = self.run_to_end([*job, "--dtype", "bfloat16"]).digest
        self.assertEqual(self.run_to_end([*job, "--dtype", "bfloat16"], ranks=2, how="threads").digest, one)
        self.assertNotEqual(self.run_to_end(job).digest, one)

    def test_the_profile_lists_ops_and_changes_no_bit(self):
        job = [*JOB, "--steps", 4]
        plain, profiled = self.run_to_end(job), self.run_to_end([*job, "--profile", 2])
        self.assertEqual(plain.digest, profiled.digest)
        self.assertNotIn("self ms", plain.out)
        self.assertIn("ops of steps 2 to 3 on rank 0:\n", profiled.out)
        # 3 layers; in 2 steps
        for row, calls in ((r"linear", 6), (r"linear \(backward\)", 6), (r"relu", 4), (r"sgd", 2)):
            self.assertRegex(profiled.out, rf"(?m)^{row} +{calls} ")
        end = self.run_to_end([*job, "--profile", 100])
        self.assertIn("ops of steps 2 to 4 on rank 0:\n", end.out)


if __name__ == "__main__":
    training.main()
