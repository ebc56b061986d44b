#!/usr/bin/env python3
"""Runs `trireme checkpoint` as its users do: test_checkpoint.py SOURCE BUILD.

Files are written and read here by Python's own means, so the format is not checked by the code that wrote it.
"""
import array
import json
import pathlib
import struct
import subprocess
import sys
import tempfile
import unittest

PROGRAM = pathlib.Path(sys.argv[2]).resolve() / "bin" / "trireme"


def write_safetensors(path, tensors, metadata=None):
    """tensors: name -> (dtype, shape, bytes)"""
    header, data = ({"__metadata__": metadata} if metadata else {}), b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def read_safetensors(path):
    content = path.read_bytes()
    length, = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8:8 + length]), content[8 + length:]
    metadata = header.pop("__metadata__", None)
    return {name: (entry["dtype"], entry["shape"], data[slice(*entry["data_offsets"])])
            for name, entry in header.items()}, metadata


def floats(*values):
    return array.array("f", values).tobytes()


TENSORS = {
    "layer.weight": ("F32", [2, 3], floats(1, 2, 3, 4, 5, 6)),
    "steps": ("I64", [], struct.pack("<q", -5)),
    "mask": ("BOOL", [3], b"\1\0\1"),
    "bytes": ("U8", [0, 4], b""),
    "möment": ("F64", [1], struct.pack("<d", 0.1)),
}


class Checkpoint(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.dir = pathlib.Path(self.folder.name)
        self.plain = self.dir / "in.safetensors"
        self.store = self.dir / "store"
        write_safetensors(self.plain, TENSORS, {"trireme.step": "7", "trireme.run_id": "r1"})

    def run_program(self, code, *arguments, folder=None):
        """Standard output and error; an error is one line that begins with the program's name."""
        run = subprocess.run([PROGRAM, "checkpoint", *map(str, arguments)], capture_output=True, text=True, timeout=60,
                             cwd=folder)
        self.assertEqual(run.returncode, code, run)
        if code in (2, 3, 4):
            self.assertRegex(run.stderr, r"\Atrireme: [^\n]+\n\Z")
        return run.stdout + run.stderr

    def test_import_and_export_keep_every_byte(self):
        self.run_program(0, "import", self.store, self.plain)
        self.run_program(0, "export", self.store, self.dir / "out.safetensors")
        tensors, metadata = read_safetensors(self.dir / "out.safetensors")
        self.assertEqual(tensors, TENSORS)
        self.assertEqual(metadata["trireme.step"], "7")
        shard, _ = read_safetensors(self.store / "step-00000007" / "shard-00000-of-00001.safetensors")
        self.assertEqual(shard, TENSORS)
        self.run_program(0, "diff", self.store, self.plain)

    def test_relative_paths(self):
        self.run_program(0, "import", "store", self.plain, folder=self.dir)
        for path, folder in (("store", self.dir), ("step-00000007", self.store), (".", self.store),
                             ("./step-00000007/", self.store), (".", self.store / "step-00000007")):
            self.assertIn("sound", self.run_program(0, "verify", path, folder=folder))
            self.assertIn("the same", self.run_program(0, "diff", path, self.plain, folder=folder))
        self.run_program(2, "verify", "", folder=self.dir)

    def test_list_and_inspect(self):
        self.run_program(0, "import", self.store, self.plain)
        self.run_program(0, "import", self.store, self.plain, "--step", 12)
        lines = self.run_program(0, "list", self.store).splitlines()
        self.assertEqual([line.split()[0] for line in lines], ["step", "7", "12"])
        text = self.run_program(0, "inspect", self.store / "step-00000007")
        for part in ("step: 7\n", "run_id: r1\n", "layer.weight float32 [2, 3]", "steps int64 []"):
            self.assertIn(part, text)

    def test_diff_names_tensor_and_element(self):
        self.run_program(0, "import", self.store, self.plain)
        other = self.dir / "other.safetensors"
        write_safetensors(other, TENSORS | {"layer.weight": ("F32", [2, 3], floats(1, 2, 3, 4, 5.5, 7))})
        text = self.run_program(1, "diff", self.store, other)
        for part in ("'layer.weight'", "element 4 [1, 1]", "5 (0x40a00000)", "5.5 (0x40b00000)", "2 of 6"):
            self.assertIn(part, text)
        write_safetensors(other, TENSORS | {"layer.weight": ("F32", [3, 2], floats(1, 2, 3, 4, 5, 6))})
        self.assertIn("float32 [2, 3] in the first, float32 [3, 2]", self.run_program(1, "diff", self.store, other))
        write_safetensors(other, TENSORS | {"a": ("U8", [1], b"x")})
        self.assertIn("'a' is only in the second", self.run_program(1, "diff", self.store, other))
        self.assertIn("'a' is only in the first", self.run_program(1, "diff", other, self.store))

    def test_list_of_damaged_ones(self):
        for step in (7, 12):
            self.run_program(0, "import", self.store, self.plain, "--step", step)
        (self.store / "step-00000012" / "manifest.pb").write_bytes(b"")
        self.assertIn("damaged", self.run_program(0, "list", self.store))
        (self.store / "step-00000007" / "manifest.pb").write_bytes(b"")
        self.assertIn("none of its 2 checkpoints can be read", self.run_program(4, "list", self.store))

    def test_verify_names_the_damage(self):
        self.run_program(0, "import", self.store, self.plain)
        self.assertIn("sound", self.run_program(0, "verify", self.store))
        shard = self.store / "step-00000007" / "shard-00000-of-00001.safetensors"
        content = bytearray(shard.read_bytes())
        content[-1] ^= 1
        shard.write_bytes(content)
        self.assertIn(f"{shard}': damaged between offset 0 and ", self.run_program(4, "verify", self.store))
        self.run_program(4, "export", self.store, self.dir / "out.safetensors")
        self.assertFalse((self.dir / "out.safetensors").exists())

    def test_mistakes_are_told(self):
        self.run_program(2)
        self.run_program(2, "frobnicate")
        self.run_program(2, "list")
        self.run_program(2, "list", self.dir / "none")
        self.run_program(2, "import", self.store, self.dir / "none")
        self.run_program(2, "import", self.plain, self.plain)
        self.run_program(4, "list", self.dir)
        self.run_program(4, "import", self.store, __file__)
        self.run_program(0, "import", self.store, self.plain)
        self.assertIn("exists", self.run_program(2, "import", self.store, self.plain))
        self.run_program(2, "export", self.store, "/proc/none")
        write_safetensors(self.plain, {"w": ("F32", [2], floats(1, float("nan")))})
        text = self.run_program(6, "import", self.dir / "other", self.plain)
        self.assertIn("tensor 'w' [2]: element 1 is nan", text)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
