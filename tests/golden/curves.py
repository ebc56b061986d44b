#!/usr/bin/env python3
"""Writes curves.json beside it: how PyTorch trains three networks. Run by hand, results are kept in the repository.

    python tests/golden/curves.py

Weights and batches come from a formula, so that tests/unit/examples/curves.cpp has the same, to the bit, without any
file of weights. Each network is trained in float64, which is what ours must reproduce, and in float32 with the samples
of each batch in several orders: how far that ends from float64 is how exact float32 can be here. Of each tensor its
norm and its product with a fixed probe are kept.
Made with torch 2.15.0+cu132 (CPU), torchvision 0.29.2+cu132, transformers 5.23.0 and numpy 2.4.6.
"""
import dataclasses, json, math, pathlib, re
from typing import Callable

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
import transformers

BATCHES, ORDERS = 4, 4  # batches are used in turn


def bits(name, count):
    """The formula: `count` uint64 that depend on the name and their place alone. G. Steele et al., "Fast splittable
    pseudorandom number generators", 2014."""
    key = 0xcbf29ce484222325
    for byte in name.encode(): key = (key ^ byte) * 0x100000001b3 % 2**64  # FNV-1a
    z = np.uint64(key) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9e3779b97f4a7c15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xbf58476d1ce4e5b9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94d049bb133111eb)
    return z ^ (z >> np.uint64(31))


def units(name, count):
    """float64 in [-1, 1), exact."""
    return (bits(name, count) >> np.uint64(11)) * 2.0**-52 - 1


def numbers(name, shape, middle=0., spread=1.):
    """middle + spread * units, as float32 has them."""
    return torch.from_numpy((middle + spread * units(name, math.prod(shape))).astype(np.float32).reshape(shape))


def indices(name, shape, bound):
    return torch.from_numpy((bits(name, math.prod(shape)) % np.uint64(bound)).astype(np.int64).reshape(shape))


def fill(model, ours):
    """Gives all parameters their values of step 0; ours(name) is our name of a parameter."""
    for name, p in model.named_parameters():
        name = ours(name)
        with torch.no_grad():
            if p.dim() > 1: p.copy_(numbers(name, p.shape, spread=1 / math.sqrt(p.numel() // p.shape[0])))
            else: p.copy_(numbers(name, p.shape, middle=float(name.endswith("weight")), spread=.25))


@dataclasses.dataclass
class Subject:
    model: torch.nn.Module
    batch: Callable      # (i) -> tensors, all of whose first dimension is the sample
    loss: Callable       # (model, *batch)
    optimizer: Callable  # (model)
    schedule: Callable = lambda optimizer: torch.optim.lr_scheduler.ConstantLR(optimizer, 1.)
    clip_norm: float = math.inf
    steps: int = 20
    ours: Callable = lambda name: name  # our name of a parameter


def resnet18(size, count, steps):
    """With the first convolution that is customary for small images; SGD. Where rounding moves a number over the kink
    of a ReLU, a gradient jumps; so float32 ends further off than elsewhere."""
    model = torchvision.models.resnet18(num_classes=10)
    model.conv1, model.maxpool = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False), torch.nn.Identity()
    return Subject(
        model, lambda i: (numbers(f"images{i}", (count, 3, size, size)), indices(f"labels{i}", (count,), 10)),
        lambda model, images, labels: F.cross_entropy(model(images), labels),
        lambda model: torch.optim.SGD(model.parameters(), lr=1e-4, momentum=.9, weight_decay=.01), steps=steps)


def cosine(warmup, total=20):
    s = torch.optim.lr_scheduler
    def schedule(optimizer):
        if not warmup: return s.CosineAnnealingLR(optimizer, total)
        return s.SequentialLR(optimizer, [s.LinearLR(optimizer, 1 / warmup, total_iters=warmup - 1),
                                          s.CosineAnnealingLR(optimizer, total - warmup)], [warmup])
    return schedule


def gpt():
    """GPT-2 of 4 layers of 128, 4 heads; AdamW that lets only matrices decay."""
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=256, n_positions=64, n_embd=128, n_layer=4, n_head=4, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
        attn_implementation="eager", bos_token_id=None, eos_token_id=None))
    def loss(model, tokens):
        return F.cross_entropy(model(tokens[:, :-1]).logits.flatten(0, 1), tokens[:, 1:].flatten())
    def optimizer(model):
        groups = [{"params": [p for p in model.parameters() if (p.dim() > 1) == decays], "weight_decay": decay}
                  for decays, decay in ((True, .1), (False, 0.))]
        return torch.optim.AdamW(groups, lr=1e-3, betas=(.9, .95))
    return Subject(model, lambda i: (indices(f"tokens{i}", (2, 65), 40),), loss, optimizer, cosine(warmup=5), 1.,
                   ours=lambda name: name.removeprefix("transformer."))


class Gnmt(torch.nn.Module):
    """Bidirectional LSTMs, then LSTMs of which the lowest asks the source by additive attention."""
    def __init__(self, layers, width, vocabulary):
        super().__init__()
        nn = torch.nn
        self.source_embedding, self.target_embedding = nn.Embedding(vocabulary, width), nn.Embedding(vocabulary, width)
        self.encoder = nn.LSTM(width, width // 2, layers, batch_first=True, bidirectional=True)
        self.decoder = nn.ModuleList(nn.LSTMCell(2 * width, width) for _ in range(layers))
        self.key, self.query = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.score, self.out = nn.Linear(width, 1, bias=False), nn.Linear(2 * width, vocabulary)

    def forward(self, source, lengths, read):
        packed = torch.nn.utils.rnn.pack_padded_sequence(self.source_embedding(source), lengths, True, False)
        memory = torch.nn.utils.rnn.pad_packed_sequence(self.encoder(packed)[0], True, total_length=source.shape[1])[0]
        keys, padding = self.key(memory), source == 0
        context = memory.new_zeros(memory.shape[0], memory.shape[2])
        states, found = [(context, context) for _ in self.decoder], []
        for x in self.target_embedding(read).unbind(1):
            for i, cell in enumerate(self.decoder):
                h, _ = states[i] = cell(torch.cat([x, context], 1), states[i])
                if i == 0:
                    scores = self.score(torch.tanh(keys + self.query(h)[:, None])).squeeze(2)
                    weights = scores.masked_fill(padding, -math.inf).softmax(1)
                    context = (weights[:, :, None] * memory).sum(1)
                x = h if i < 2 else h + x
            found.append(torch.cat([x, context], 1))
        return self.out(torch.stack(found, 1))


def gnmt():
    """4 layers of 64. Words from 3 on; 0 pads, 1 begins, 2 ends; no answer is asked for where it is -100."""
    words, length, count = 20, 8, 16
    def batch(i):
        lengths = length // 2 + indices(f"lengths{i}", (count,), length // 2 + 1)
        place = torch.arange(length + 1)
        source = 3 + indices(f"source{i}", (count, length), words)
        source[place[:-1] >= lengths[:, None]] = 0
        answer = 3 + indices(f"answer{i}", (count, length + 1), words)
        read = torch.cat([torch.ones(count, 1, dtype=torch.int64), answer[:, :-1]], 1)
        read[place > lengths[:, None]] = 0
        answer[place == lengths[:, None]], answer[place > lengths[:, None]] = 2, -100
        return source, lengths, read, answer
    def loss(model, source, lengths, read, answer):
        logits = model(source, lengths, read)
        return F.cross_entropy(logits.flatten(0, 1), answer.flatten(), ignore_index=-100, reduction="sum") / count
    def optimizer(model): return torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0)
    return Subject(Gnmt(4, 64, words + 3), batch, loss, optimizer, cosine(warmup=0), 1.)


def train(subject, dtype, order):
    """Losses, the gradients of step 0 before clipping, and all tensors at the end."""
    model = subject.model
    fill(model.float(), subject.ours)
    for m in model.modules():
        if isinstance(m, torch.nn.BatchNorm2d): m.reset_running_stats()
    model.to(dtype).train()
    optimizer, losses = subject.optimizer(model), []
    schedule = subject.schedule(optimizer)
    for step in range(subject.steps):
        batch = [t.roll(order, 0) for t in subject.batch(step % BATCHES)]
        loss = subject.loss(model, *(t.to(dtype) if t.is_floating_point() else t for t in batch))
        optimizer.zero_grad()
        loss.backward()
        if step == 0: gradients = {subject.ours(n): p.grad.double().clone() for n, p in model.named_parameters()}
        if subject.clip_norm < math.inf: torch.nn.utils.clip_grad_norm_(model.parameters(), subject.clip_norm)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    tensors = [*model.named_parameters(), *((n, b) for n, b in model.named_buffers() if "num_batches" not in n)]
    return losses, gradients, {subject.ours(n): t.detach().double().clone() for n, t in tensors}


def summary(tensors):
    """By name: norm, product with the probe."""
    return {name: [float(t.norm()), float(t.flatten() @ torch.from_numpy(units("probe " + name, t.numel())))]
            for name, t in tensors.items()}


def curve(subject):
    losses, gradients, state = train(subject, torch.float64, 0)
    off = {"losses": 0., "gradients": 0., "state": 0.}  # float32, relative to losses and norms
    for order in range(ORDERS):
        rounded = train(subject, torch.float32, order)
        off["losses"] = max(off["losses"], *(abs(a - b) / b for a, b in zip(rounded[0], losses)))
        for kind, theirs, exact in (("gradients", rounded[1], gradients), ("state", rounded[2], state)):
            off[kind] = max(off[kind], *(float((theirs[n] - t).norm() / t.norm()) for n, t in exact.items()))
    print(f"loss {losses[0]:.4f} to {losses[-1]:.4f}; float32 is off by", {kind: f"{by:.1e}" for kind, by in off.items()})
    return {"losses": losses, "float32_off": off, "gradients": summary(gradients), "state": summary(state)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    text = json.dumps({"torch": torch.__version__, "torchvision": torchvision.__version__,
                       "transformers": transformers.__version__, "numpy": np.__version__,
                       "resnet18": curve(resnet18(32, 4, steps=20)), "resnet18_small": curve(resnet18(8, 6, steps=5)),
                       "gpt": curve(gpt()), "gnmt": curve(gnmt())}, indent=1)
    text = re.sub(r"\[\s+([^\]]*?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", text)  # a list is a line
    (pathlib.Path(__file__).parent / "curves.json").write_text(text + "\n")
