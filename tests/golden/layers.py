"""Cases of layers and optimizers."""
import torch
import torch.nn.functional as F

from case import *


def layer(name, theirs, given, *how, training=True, derivatives=2,
          call=lambda run, *given: [run(*given)]):
    """A layer made as `how` says and called with `given` (x, or all of a tuple); call(run, *given) calls PyTorch's.

    Parameters get new values and are inputs; buffers are, too, and results as well."""
    theirs, given = theirs.double().train(training), given if isinstance(given, tuple) else (given,)
    names = {n: T(*p.shape, low=-1, high=1) for n, p in theirs.named_parameters()}
    names.update({n: T(*b.shape, low=.5, grad=False) for n,
        b in theirs.named_buffers() if "num_batches" not in n})
    def ref(state, training, *rest):
        for n, b in theirs.named_buffers():
            if n in state: state[n] = b.copy_(state[n])
        def run(*args, **named):
            with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
                return torch.func.functional_call(theirs, state, args, named)
        out = call(run, *rest[:len(given)])
        return list(out) + [b.clone() for n, b in theirs.named_buffers() if n in state]
    case(f"nn.{name}", names, training, *given, *how, ref=ref, derivatives=derivatives)


def modules():
    nn = torch.nn
    for bias in (True, False):
        layer("Linear", nn.Linear(4, 2, bias), T(3, 4), 4, 2, bias)
        layer("Linear", nn.Linear(4, 2, bias), T(2, 3, 4, layout="transposed"), 4, 2, bias)
        layer("Conv2d", nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2, bias=bias), T(2, 2, 5, 4), 2, 4,
            3, {"stride": 2, "padding": 1, "groups": 2}, bias)
        layer("Conv1d", nn.Conv1d(2, 4, 3, padding=1, bias=bias), T(2, 2, 5), 2, 4, 3, {"padding": 1}, bias)
        layer("ConvTranspose2d", nn.ConvTranspose2d(2, 4, 3, stride=2, bias=bias), T(2, 2, 3, 2), 2, 4, 3,
            {"stride": 2}, bias)
    for training in (True, False):
        for o in ({}, {"eps": .1, "momentum": .3}):
            layer("BatchNorm2d", nn.BatchNorm2d(3, **o), T(2, 3, 2, 3, layout="channels_last"), 3, o,
                training=training)
        layer("BatchNorm2d", nn.Sequential(nn.BatchNorm2d(2), nn.ReLU())[0], T(4, 2, 1, 2), 2,
            training=training)
        for stride, out in ((1, 2), (2, 3)): layer("BasicBlock", Block(2, out, stride), T(3, 2, 4, 4), 2,
            out, stride, training=training)
    layer("Embedding", nn.Embedding(5, 3), I(2, 4), 5, 3)
    layer("LayerNorm", nn.LayerNorm([3, 4]), T(2, 3, 4), [3, 4])
    layer("RMSNorm", nn.RMSNorm([4]), T(2, 3, 4), [4])
    layer("GroupNorm", nn.GroupNorm(2, 4), T(2, 4, 3), 2, 4)
    layer("GELU", nn.GELU("tanh"), T(2, 3), "tanh")
    layer("Softmax", nn.Softmax(0), T(2, 3), 0)
    layer("Dropout", nn.Dropout(.4), T(2, 3), .4, training=False), layer("ReLU", nn.ReLU(), T(2, 3))
    layer("Flatten", nn.Flatten(), T(2, 3, 2, layout="strided"))
    layer("MaxPool2d", nn.MaxPool2d(3, 2, 1), T(2, 2, 5, 4), {"kernel": 3, "stride": 2, "padding": 1})
    layer("AvgPool2d", nn.AvgPool2d(2), T(2, 2, 4, 4), {"kernel": 2})
    layer("GlobalAvgPool2d", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), T(2, 3, 3, 2))


def sequences():
    """Recurrent layers: output and last states, from initial states and of sequences of different lengths."""
    nn, pack, unpack = torch.nn, torch.nn.utils.rnn.pack_padded_sequence, torch.nn.utils.rnn.pad_packed_sequence
    def flat(out):
        return [t for part in out for t in (part if isinstance(part, tuple) else (part,))]
    def sequence(name, o, batch=2, initial=False, lengths=None, mode="tanh"):
        batch_first = o.get("batch_first", False)
        def call(run, x, h, c, lengths):
            state = (h if c is None else (h, c),) if h is not None else ()
            if lengths is None: return flat(run(x, *state))
            length = x.shape[1 if batch_first else 0]
            out, state = run(pack(x, lengths, batch_first, enforce_sorted=False), *state)
            return flat([unpack(out, batch_first, total_length=length)[0], state])
        parts = o.get("num_layers", 1) * (2 if o.get("bidirectional") else 1)
        h, c = (T(parts, batch, 2) if wanted else None for wanted in (initial, initial and name == "LSTM"))
        x = T(batch, 4, 3) if batch_first else T(4, batch, 3)
        more = {"nonlinearity": mode} if name == "RNN" else {}
        layer(name, getattr(nn, name)(3, 2, **o, **more), (x, h, c, lengths and V(lengths, torch.int64)), 3, 2, o,
            *([mode] if name == "RNN" else []), call=call)
    for name in ("RNN", "LSTM", "GRU"):
        both = {"num_layers": 2, "bidirectional": True}
        sequence(name, {}), sequence(name, {"batch_first": True, "bias": False}, initial=True)
        sequence(name, both, initial=True), sequence(name, {"num_layers": 3})
        sequence(name, {}, 3, lengths=[2, 4, 1]), sequence(name, {"batch_first": True}, 3, True, [3, 1, 2])
        sequence(name, both, 3, True, [1, 4, 3])
    for o in ({}, {"bidirectional": True}): sequence("RNN", o, initial=True, mode="relu")
    for bias in (True, False):
        cell = lambda name, *given, call: layer(name, getattr(nn, name)(3, 2, bias), given, 3, 2, bias, call=call)
        for h, c in ((None, None), (T(4, 2), T(4, 2))):
            cell("LSTMCell", T(4, 3), h, c, call=lambda run, x, h, c: run(x, None if h is None else (h, c)))
            cell("GRUCell", T(4, 3), h, call=lambda run, x, h: [run(x, h)])


def looks(o, queries, keys):
    """PyTorch's masks for those of nn::AttentionMask."""
    mask, padding = o.get("mask"), o.get("key_padding_mask")
    if o.get("is_causal"):
        later = torch.ones(queries, keys, dtype=torch.bool).triu(1)
        mask = later if mask is None else mask | later if mask.dtype == torch.bool else mask.masked_fill(later, -INF)
    if mask is not None and padding is not None and mask.dtype != padding.dtype:  # it wants them alike
        mask, padding = (torch.zeros(m.shape).double().masked_fill(m, -INF) if m.dtype == torch.bool else m
                         for m in (mask, padding))
    return mask, padding


def attention():
    """MultiheadAttention and the layers of transformers. Two sequences of 3 queries and 4 keys, two heads."""
    nn = torch.nn
    def bools(*rows): return V([[c == "x" for c in row] for row in rows], torch.bool)
    hidden, padding = bools("..x.", "x..x", ".xx."), bools("...x", ".x..")
    masks = ({}, {"is_causal": True}, {"mask": hidden}, {"mask": T(3, 4)}, {"mask": T(4, 3, 4)},
        {"key_padding_mask": padding}, {"key_padding_mask": T(2, 4, grad=False)}, {"mask": bools("xxxx", "....", "x..x")},
        {"mask": T(3, 4), "key_padding_mask": padding, "is_causal": True})
    for i, m in enumerate(masks):
        for weights in (None, True, False):
            if weights is not None and i not in (0, 2, 8): continue
            o = {"batch_first": i % 2 == 1, "bias": i % 3 != 2}
            def call(run, q, k, v, m, *average):
                mask, padded = looks(m, 3, 4)
                out = run(q, k, v, key_padding_mask=padded, attn_mask=mask, need_weights=bool(average),
                    **({"average_attn_weights": average[0]} if average else {}))
                return out if average else out[:1]
            q, kv = ((2, 3, 4), (2, 4, 4)) if o["batch_first"] else ((3, 2, 4), (4, 2, 4))
            layer("MultiheadAttention" + (".with_weights" if weights is not None else ""), nn.MultiheadAttention(4, 2, **o),
                (T(*q), T(*kv), T(*kv), m, *([] if weights is None else [weights])), 4, 2, o, call=call)
    x = T(3, 2, 4)
    layer("MultiheadAttention", nn.MultiheadAttention(4, 2), (x, x, x, {}), 4, 2, {}, call=lambda run, x, *_: run(x, x, x)[:1])

    square, ends = {"mask": bools("..x", "x..", ".x.")}, {"key_padding_mask": bools("...", "..x")}
    def encoder(run, src, m):
        mask, padded = looks(m, 3, 3)
        return [run(src, mask, src_key_padding_mask=padded)]
    def decoder(run, tgt, memory, m, seen):
        (mask, padded), (memory_mask, memory_padded) = looks(m, 3, 3), looks(seen, 3, 4)
        return [run(tgt, memory, mask, memory_mask, tgt_key_padding_mask=padded, memory_key_padding_mask=memory_padded)]
    options = ({}, {"norm_first": True}, {"activation": "gelu"}, {"activation": "gelu", "norm_first": True, "bias": False,
        "batch_first": True, "layer_norm_eps": .1})
    for i, o in enumerate(options):
        o = {"dim_feedforward": 5, "dropout": 0., **o}
        first = o.get("batch_first")
        src, memory = (T(2, 3, 4), T(2, 4, 4)) if first else (T(3, 2, 4), T(4, 2, 4))
        for m in ({}, {"is_causal": True}, ends, {**square, **ends})[:4 if i == 0 else 2]:
            layer("TransformerEncoderLayer", nn.TransformerEncoderLayer(4, 2, **o), (src, m), 4, 2, o, call=encoder)
        for m, seen in (({}, {}), ({"is_causal": True}, {"mask": hidden, "key_padding_mask": padding}))[i != 2 and i:]:
            layer("TransformerDecoderLayer", nn.TransformerDecoderLayer(4, 2, **o), (src, memory, m, seen), 4, 2, o,
                call=decoder)
    o = {"dim_feedforward": 3, "dropout": 0., "norm_first": True}
    src, memory = T(3, 2, 4), T(4, 2, 4)
    for norm in (True, False):
        last = nn.LayerNorm(4) if norm else None
        layer("TransformerEncoder", nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, **o), 2, last, False),
            (src, ends), 4, 2, 2, o, norm, call=encoder, derivatives=1)
        layer("TransformerDecoder", nn.TransformerDecoder(nn.TransformerDecoderLayer(4, 2, **o), 2, last),
            (src, memory, {"is_causal": True}, {}), 4, 2, 2, o, norm, call=decoder, derivatives=1)
    def whole(run, src, tgt, seen, m, from_src):
        (src_mask, src_padded), (mask, padded), (memory_mask, memory_padded) = looks(seen, 4, 4), looks(m, 3, 3), looks(from_src, 3, 4)
        return [run(src, tgt, src_mask, mask, memory_mask, src_key_padding_mask=src_padded, tgt_key_padding_mask=padded,
            memory_key_padding_mask=memory_padded)]
    o = {"dim_feedforward": 3, "dropout": 0.}
    keys = {"key_padding_mask": padding}
    layer("Transformer", nn.Transformer(4, 2, 1, 2, **o), (memory, src, keys, {"is_causal": True}, keys), 4, 2, 1, 2, o,
        call=whole, derivatives=1)


class Block(torch.nn.Module):
    """The basic block of residual networks."""
    def __init__(self, c, out, stride):
        super().__init__()
        nn = torch.nn
        self.conv1, self.bn1 = nn.Conv2d(c, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.downsample = nn.Sequential(*([nn.Conv2d(c, out, 1, stride, bias=False),
            nn.BatchNorm2d(out)] if c != out or stride > 1 else []))

    def forward(self, x):
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.downsample(x))


def optimizers():
    def steps(kind):
        def ref(start, gradients, o):
            o = dict(o)
            if "beta1" in o: o["betas"] = (o.pop("beta1"), o.pop("beta2"))
            params = [p.clone().requires_grad_(True) for p in start]
            optimizer, after = kind(params, **o), [[] for _ in params]
            for step in range(len(gradients[0])):
                for p, g in zip(params, gradients): p.grad = g[step].clone()
                optimizer.step()
                for p, list_ in zip(params, after): list_.append(p.detach().clone())
            return [torch.stack(a) for a in after]
        return ref
    sgd = ({"lr": .1}, {"lr": .1, "momentum": .9}, {"lr": .1, "momentum": .9, "nesterov": True}, {"lr": .05,
        "weight_decay": .1},
           {"lr": .05, "momentum": .8, "weight_decay": .1, "nesterov": True}, {"lr": .05, "momentum": .8,
               "weight_decay": .1})
    adamw = ({"lr": .01}, {"lr": .02, "beta1": .8, "beta2": .9}, {"lr": .01, "weight_decay": .3},
        {"lr": .01, "eps": .1, "weight_decay": 0.})
    for name, kind, options in (("SGD", torch.optim.SGD, sgd), ("AdamW", torch.optim.AdamW, adamw)):
        for o in options:
            for layout in ("", "strided"):
                case(f"optim.{name}", [T(2, 3), T(4)], [T(10, 2, 3, layout=layout), T(10, 4)], o,
                    ref=steps(kind), derivatives=0)
    def scaled(start, gradients, o):
        """The parameters after each step, the scale after it, and whether it was made."""
        params = [p.clone().requires_grad_(True) for p in start]
        optimizer, after = torch.optim.SGD(params, lr=.1, momentum=.9), [[] for _ in range(len(params) + 2)]
        scaler = torch.amp.GradScaler("cpu", o["initial_scale"], o["growth"], o["backoff"], o["growth_interval"],
            o.get("enabled", True))
        for step in range(len(gradients[0])):
            optimizer.zero_grad()
            before = [p.detach().clone() for p in params]
            scaler.scale(sum((p * g[step]).sum() for p, g in zip(params, gradients))).backward()
            scaler.step(optimizer), scaler.update()
            values = [p.detach().clone() for p in params]
            made = any(not torch.equal(a, b) for a, b in zip(before, values))
            for list_, v in zip(after, values + [torch.tensor(scaler.get_scale()).double(), torch.tensor(made)]): list_.append(v)
        return [torch.stack(a) for a in after]
    bad = [[], [(0, INF)], [(4, NAN), (5, -INF), (9, INF)], [(s, INF) for s in range(10)]]
    for i, at in enumerate(bad):
        rows = [[.5 - .125 * s, .25 * s - 1, .375] for s in range(10)]
        for s, v in at: rows[s][i % 3] = v
        o = {"initial_scale": 8., "growth": 4., "backoff": .25, "growth_interval": 3}
        for more in ({}, {"growth_interval": 1}) if i != 2 else ({}, {"growth_interval": 2, "backoff": .5}):
            case("optim.GradScaler", [T(2, 2), T(3)], [T(10, 2, 2), V(rows)], {**o, **more}, ref=scaled, derivatives=0)
    case("optim.GradScaler", [T(3)], [T(10, 3)], {**o, "enabled": False}, ref=scaled, derivatives=0)
    def clip(gradients, limit):
        params = [torch.zeros_like(g) for g in gradients]
        for p, g in zip(params, gradients): p.grad = g.clone()
        return [torch.nn.utils.clip_grad_norm_(params, limit)] + [p.grad for p in params]
    for limit in (.5, 100.): case("optim.clip_grad_norm", [T(2, 3), T(5)], limit, ref=clip, derivatives=0, float32=False)
    def rates(o):
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=o["peak"])
        s, total = torch.optim.lr_scheduler, o["total"]
        scheduler = {"one_cycle": lambda: s.OneCycleLR(optimizer, o["peak"], total),
            "cosine": lambda: s.CosineAnnealingLR(optimizer, total),
                     "step": lambda: s.MultiStepLR(optimizer, [total // 2, total * 3 // 4]), "constant": lambda: s.ConstantLR(optimizer, 1.)}[o["kind"]]()
        list_ = []
        for _ in range(total): list_.append(scheduler.get_last_lr()[0]), optimizer.step(), scheduler.step()
        return torch.tensor(list_, dtype=torch.float64)
    for kind in ("constant", "cosine", "one_cycle", "step"): case("optim.learning_rate", {"kind": kind,
        "peak": .3, "total": 20}, ref=rates, derivatives=0, float32=False)
