#!/usr/bin/env python3
"""Checks against PyTorch and its tools: test_pytorch.py SOURCE BUILD.

Networks with random weights are saved there and loaded here by name; logits, losses and gradients must agree.
Needs a Python with torch, torchvision, transformers, safetensors and numpy; TRIREME_TORCH_PYTHON names one.
"""
import os
import pathlib
import re
import subprocess
import sys
import sysconfig
import tempfile
import unittest

PYTHON = os.environ.get("TRIREME_TORCH_PYTHON", sys.executable)
if PYTHON != sys.executable:
    os.execv(PYTHON, [PYTHON, *sys.argv])
try:
    import numpy
    import safetensors.torch
    import torch
    import torchvision
    import transformers
except ImportError as error:
    print(f"skipped: {error} in {PYTHON}; TRIREME_TORCH_PYTHON may name a Python that has PyTorch")
    sys.exit(77)

SOURCE = pathlib.Path(sys.argv[1]).resolve()
PROGRAM = pathlib.Path(sys.argv[2]).resolve() / "tests" / "interchange_program"

RESNET_MAP = """
stem.{*}                         conv1.{*}
norm.{*}                         bn1.{*}
head.{*}                         fc.{*}
body.0.{j}.norm{i}.{*}           layer1.{j}.bn{i}.{*}
body.0.{j}.shortcut.{*}          layer1.{j}.downsample.{*}
body.0.{*}                       layer1.{*}
body.1.{j}.norm{i}.{*}           layer2.{j}.bn{i}.{*}
body.1.{j}.shortcut.{*}          layer2.{j}.downsample.{*}
body.1.{*}                       layer2.{*}
body.2.{j}.norm{i}.{*}           layer3.{j}.bn{i}.{*}
body.2.{j}.shortcut.{*}          layer3.{j}.downsample.{*}
body.2.{*}                       layer3.{*}
body.3.{j}.norm{i}.{*}           layer4.{j}.bn{i}.{*}
body.3.{j}.shortcut.{*}          layer4.{j}.downsample.{*}
body.3.{*}                       layer4.{*}
-                                {*}.num_batches_tracked
"""

# Transformers keeps the weights of its "Conv1D" the other way round, and queries, keys and values in one.
GPT2_MAP = """
words                            transformer.wte.weight
places                           transformer.wpe.weight
last.gamma                       transformer.ln_f.weight
last.beta                        transformer.ln_f.bias
blocks.{i}.before.gamma          transformer.h.{i}.ln_1.weight
blocks.{i}.before.beta           transformer.h.{i}.ln_1.bias
blocks.{i}.behind.gamma          transformer.h.{i}.ln_2.weight
blocks.{i}.behind.beta           transformer.h.{i}.ln_2.bias
blocks.{i}.query.weight          transformer.h.{i}.attn.c_attn.weight   transpose part=1/3
blocks.{i}.key.weight            transformer.h.{i}.attn.c_attn.weight   transpose part=2/3
blocks.{i}.value.weight          transformer.h.{i}.attn.c_attn.weight   transpose part=3/3
blocks.{i}.query.bias            transformer.h.{i}.attn.c_attn.bias     part=1/3
blocks.{i}.key.bias              transformer.h.{i}.attn.c_attn.bias     part=2/3
blocks.{i}.value.bias            transformer.h.{i}.attn.c_attn.bias     part=3/3
blocks.{i}.out.weight            transformer.h.{i}.attn.c_proj.weight   transpose
blocks.{i}.out.bias              transformer.h.{i}.attn.c_proj.bias
blocks.{i}.up.weight             transformer.h.{i}.mlp.c_fc.weight      transpose
blocks.{i}.up.bias               transformer.h.{i}.mlp.c_fc.bias
blocks.{i}.down.weight           transformer.h.{i}.mlp.c_proj.weight    transpose
blocks.{i}.down.bias             transformer.h.{i}.mlp.c_proj.bias
-                                lm_head.weight
"""


def as_ours(name, parameters, names):
    """What the map says that our tensor is, of theirs."""
    for line in names.split("\n"):
        if not line or line.startswith("-"):
            continue
        ours, theirs, *steps = line.split()
        pattern = re.escape(ours).replace(r"\{i\}", r"(?P<i>\d+)").replace(r"\{j\}", r"(?P<j>\d+)").replace(
            r"\{\*\}", "(?P<any>.*)")
        if match := re.fullmatch(pattern, name):
            tensor = parameters[theirs.replace("{*}", "{any}").format(**match.groupdict())]
            for step in steps:
                if step == "transpose":
                    tensor = tensor.T
                else:
                    part, parts = map(int, step.removeprefix("part=").split("/"))
                    tensor = tensor.chunk(parts)[part - 1]
            return tensor
    raise AssertionError(f"no line for {name}")


def distance(a, b):
    a, b = a.double(), b.double()
    return float((a - b).norm() / (b.norm() + 1e-30))


class Here(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.dir = pathlib.Path(self.folder.name)
        torch.manual_seed(1)

    def run_program(self, *arguments, env=None):
        done = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=300, env=env)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout


class Safetensors(Here):
    def test_every_type_goes_round(self):
        kinds = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool)
        theirs = {f"{kind}.{shape}": (torch.randn(shape) * 3).abs().to(kind)
                  for kind in kinds for shape in ((), (0, 3), (5, 7))}
        safetensors.torch.save_file(theirs, self.dir / "a", metadata={"format": "pt", "who": "torch"})
        self.run_program("copy", self.dir / "a", self.dir / "b")
        ours = safetensors.torch.load_file(self.dir / "b")
        self.assertEqual(ours.keys(), theirs.keys())
        for name in theirs:
            self.assertEqual(ours[name].dtype, theirs[name].dtype, name)
            self.assertTrue(torch.equal(ours[name], theirs[name]), name)
        with safetensors.safe_open(self.dir / "b", "numpy") as file:
            self.assertEqual(file.metadata(), {"format": "pt", "who": "torch"})


class Models(Here):
    def check(self, kind, names, model, logits_of, batch, gradient_limit):
        weights = {name: t.clone().contiguous() for name, t in model.state_dict().items()}
        safetensors.torch.save_file(weights, self.dir / "weights")
        safetensors.torch.save_file(batch, self.dir / "batch")
        (self.dir / "map").write_text(names)
        logits = logits_of(model, batch["x"])
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), batch["labels"])
        loss.backward()
        self.run_program(kind, self.dir / "weights", self.dir / "map", self.dir / "batch", self.dir / "out")
        ours = safetensors.torch.load_file(self.dir / "out")
        self.assertLess(distance(ours.pop("logits"), logits.detach()), 1e-4)
        self.assertAlmostEqual(float(ours.pop("loss")), float(loss), places=4)
        gradients = {name: p.grad for name, p in model.named_parameters()}
        worst = max((distance(g, as_ours(name.removeprefix("grad."), gradients, names)), name)
                    for name, g in ours.items())
        print(f"{kind}: {len(ours)} gradients, furthest apart {worst[1]} by {worst[0]:.1e}")
        self.assertLess(worst[0], gradient_limit, worst[1])
        return len(ours)

    def test_resnet50(self):
        model = torchvision.models.resnet50(num_classes=10)
        batch = {"x": torch.randn(4, 3, 64, 64), "labels": torch.randint(10, (4,))}
        self.assertEqual(self.check("resnet50", RESNET_MAP, model, lambda m, x: m(x), batch, 2e-2), 161)

    def test_gpt2(self):
        config = transformers.GPT2Config(vocab_size=101, n_positions=32, n_embd=64, n_layer=2, n_head=4,
                                         resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)
        model = transformers.GPT2LMHeadModel(config)
        for p in model.parameters():  # all biases, too
            torch.nn.init.normal_(p, std=0.3)
        batch = {"x": torch.randint(101, (3, 17)), "labels": torch.randint(101, (3 * 17,))}
        self.assertEqual(self.check("gpt2", GPT2_MAP, model, lambda m, x: m(x).logits, batch, 1e-4), 36)


class DLPack(Here):
    def test_arrays_are_shared_both_ways(self):
        library = pathlib.Path(sysconfig.get_config_var("LIBDIR")) / sysconfig.get_config_var("LDLIBRARY")
        if ".so" not in library.name or not library.exists():
            self.skipTest(f"{library}: Python has no shared library here")
        env = dict(os.environ, PYTHONHOME=sys.base_prefix, PYTHONPATH=os.pathsep.join(p for p in sys.path if p))
        said = self.run_program("python", library, SOURCE / "tests" / "process" / "dlpack_peer.py", env=env)
        self.assertTrue(said.endswith("all is well\n"), said)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=2)
