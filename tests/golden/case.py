"""A golden case: inputs, PyTorch's results, and the file that they go to. make.py says how it is used."""
import json, math, pathlib, re, struct, zlib

import numpy as np
import torch
import torch.nn.functional as F

ROOT = pathlib.Path(__file__).resolve().parents[2]
INF, NAN = math.inf, math.nan


class In:
    """An input: `make(generator)` gives its values. Layouts are those of golden.cpp."""
    def __init__(self, make, layout="", grad=True):
        self.make, self.layout, self.grad = make, layout, grad


def T(*shape, low=-2, high=2, layout="", grad=True):
    """float64, all different, odd multiples of 1/512: float32 holds them, and no kink or rounding border is hit."""
    def make(g):
        if layout == "expanded":
            return T(1, *shape[1:], low=low, high=high).make(g).expand(shape)
        n = math.prod(shape)
        steps = torch.randperm(max(n, int((high - low) * 256)), generator=g)[:n]
        return (low + (2 * steps.double() + 1) / 512).reshape(shape)
    return In(make, layout, grad)


def V(values, dtype=torch.float64, layout="", grad=True):
    return In(lambda g: torch.tensor(values, dtype=dtype), layout, grad)


def I(*shape, high=5, low=0, layout="", dtype=torch.int64):
    return In(lambda g: torch.randint(low, high, shape, generator=g).to(dtype), layout)


def B(*shape, layout=""):
    return I(*shape, high=2, layout=layout, dtype=torch.bool)


def walk(arg, tensor):
    """The argument with every input replaced."""
    if isinstance(arg, In): return tensor(arg)
    if isinstance(arg, (list, tuple)): return [walk(a, tensor) for a in arg]
    if isinstance(arg, dict): return {k: walk(a, tensor) for k, a in arg.items()}
    return arg


def as_json(arg, inputs):
    if isinstance(arg, In): return {"t": inputs.index(arg)}
    if isinstance(arg, list) and arg and all(isinstance(a, In) for a in arg):
        return {"t": [inputs.index(a) for a in arg]}
    if isinstance(arg, dict): return {k: as_json(a, inputs) for k, a in arg.items()}
    if isinstance(arg, list): return [as_json(a, inputs) for a in arg]
    return str(arg) if isinstance(arg, float) and not math.isfinite(arg) else arg


DECLARED = {}  # name -> declarations
for header in re.findall(r'"(core/ops/\w+\.h)"', (ROOT / "core/ops/ops.h").read_text()):
    for name, args in re.findall(r"(?:^|\n)(?:inline )?(?:const Tensor&|Tensor|Found|LstmState|std::vector<Tensor>) "
                                 r"(\w+|operator.)\(([^)]*)\)", (ROOT / header).read_text()):
        types = [re.sub(r"\s+\w+\s*$", "", re.sub(r"\bconst\b|&|=.*", "", a, flags=re.S)).strip()
                 for a in args.split(",")] if args else []
        DECLARED.setdefault(name, []).append(f"{name}({', '.join(types)})")


def declaration(op):
    found = DECLARED.get(op, [])
    assert "(" in op or op.startswith(("nn.", "optim.")) or len(found) == 1, f"{op} is one of {found}"
    return found[0] if found else op


def reference(op):
    """PyTorch's function of this name; of an in-place one, on a copy."""
    name = op.split("(")[0]
    if name.endswith("_"):
        if hasattr(torch.Tensor, name): return lambda x, *a: getattr(x.clone(), name)(*a)
        name = name[:-1]
    return getattr(torch, name, None) or getattr(F, name)


def weighted(tensors, above=None):
    """golden.cpp has the same weights. The gradients from above, if given, are these numbers in turn."""
    total = None
    for k, t in enumerate(tensors):
        if t is not None and t.is_floating_point() and t.requires_grad:
            weights = torch.tensor(above, dtype=torch.float64).repeat(t.numel())[:t.numel()] if above else 0.5 + ((37 * torch.arange(t.numel()) + 11 * k) % 101).double() / 101
            part = (t * weights.reshape(t.shape).to(t.dtype)).sum()
            total = part if total is None else total + part
    return total


cases, tensors = [], {}


def case(op, *args, ref=None, float32=True, derivatives=2, above=None):
    name = f"{op.split('(')[0].removeprefix('nn.').removeprefix('optim.')}.{len(cases)}"
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    inputs, values = [], []

    def value(i):
        if i not in inputs:
            inputs.append(i)
            values.append(i.make(generator).contiguous())
            if i.grad and values[-1].is_floating_point() and derivatives: values[-1].requires_grad_(True)
        return values[inputs.index(i)]

    outs = (ref or reference(op))(*walk(list(args), value))
    outs = [outs] if isinstance(outs, torch.Tensor) else list(outs)
    wanted, stored = [v for v in values if v.requires_grad], {"out": outs}
    loss = weighted(outs, above)
    for kind, more in (("grad", derivatives > 1), ("gradgrad",
        False))[:derivatives if loss is not None else 0]:
        found = [torch.zeros_like(v) for v in wanted] if loss is None else torch.autograd.grad(
            loss, wanted, create_graph=more, retain_graph=True, materialize_grads=True)
        stored[kind] = [found[[w is v for w in wanted].index(True)] if v.requires_grad else None for v in values]
        loss = weighted(stored[kind])
    for kind, list_ in {"in": values, **stored}.items():
        tensors.update({f"{name}/{kind}{i}": t.detach() for i, t in enumerate(list_) if t is not None})
    cases.append({"name": name, "op": declaration(op), "args": [as_json(a, inputs) for a in args],
                  "inputs": [{**({"layout": i.layout} if i.layout else {}),
                      **({} if i.grad else {"grad": False})}
                             for i in inputs],
                  **({"above": as_json(above, [])} if above else {}), "derivatives": len(stored) - 1, **({} if float32 else {"float32": False})})


def write(family):
    """https://huggingface.co/docs/safetensors: widest elements first, so that all are aligned."""
    names = {torch.float64: "F64", torch.float32: "F32", torch.int64: "I64", torch.uint8: "U8",
        torch.bool: "BOOL"}
    metadata = {"cases": json.dumps(cases, separators=(",", ":")), "torch": torch.__version__,
        "numpy": np.__version__}
    header, data = {"__metadata__": metadata}, b""
    for name, t in sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])):
        raw = t.contiguous().numpy(force=True).tobytes()  # also of autograd's symbolic zeros
        header[name] = {"dtype": names[t.dtype], "shape": list(t.shape), "data_offsets": [len(data),
            len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    (pathlib.Path(__file__).parent / f"{family}.safetensors").write_bytes(struct.pack("<Q",
        len(text)) + text + data)
    print(f"{family}: {len(cases)} cases, {8 + len(text) + len(data)} bytes")
