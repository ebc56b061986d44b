"""Cases of layers and optimizers."""
import torch
import torch.nn.functional as F

from case import *


def modules():
    def layer(name, theirs, x, *args, training=True):
        """Parameters get new values and are inputs; buffers are, too, and results as well."""
        theirs = theirs.double().train(training)
        names = {n: T(*p.shape, low=-1, high=1) for n, p in theirs.named_parameters()}
        names.update({n: T(*b.shape, low=.5, grad=False) for n,
            b in theirs.named_buffers() if "num_batches" not in n})
        def ref(state, training, x, *args):
            for n, b in theirs.named_buffers():
                if n in state: state[n] = b.copy_(state[n])
            out = torch.func.functional_call(theirs, state, (x,))
            return [out] + [b.clone() for n, b in theirs.named_buffers() if n in state]
        case(f"nn.{name}", names, training, x, *args, ref=ref)
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
    layer("MultiheadAttention", SelfAttention(4, 2), T(3, 2, 4), 4, 2)
    layer("GELU", nn.GELU("tanh"), T(2, 3), "tanh")
    layer("Softmax", nn.Softmax(0), T(2, 3), 0)
    for name in ("RNN", "LSTM", "GRU"):
        for o in ({}, {"num_layers": 2, "bidirectional": True}, {"batch_first": True, "bias": False}):
            layer(name, First(getattr(nn, name)(3, 2, **o)), T(3, 2, 3), 3, 2, o)
    layer("Dropout", nn.Dropout(.4), T(2, 3), .4, training=False), layer("ReLU", nn.ReLU(), T(2, 3))
    layer("Flatten", nn.Flatten(), T(2, 3, 2, layout="strided"))
    layer("MaxPool2d", nn.MaxPool2d(3, 2, 1), T(2, 2, 5, 4), {"kernel": 3, "stride": 2, "padding": 1})
    layer("AvgPool2d", nn.AvgPool2d(2), T(2, 2, 4, 4), {"kernel": 2})
    layer("GlobalAvgPool2d", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), T(2, 3, 3, 2))


class First(torch.nn.Module):
    """A layer's first result, with its parameters under their own names."""
    def __init__(self, layer):
        super().__init__()
        self._parameters, self.layer = layer._parameters, [layer]

    def forward(self, x):
        return torch.func.functional_call(self.layer[0], dict(self.named_parameters()), (x,))[0]


class SelfAttention(torch.nn.MultiheadAttention):
    def forward(self, x):
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH): return super().forward(x,
            x, x)[0]


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
