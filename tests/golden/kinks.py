"""Cases of values where slopes jump or are infinite, under infinite and NaN gradients from above.

An op that multiplies a gradient by a mask gives NaN where PyTorch selects. These cases are left out, because they are NaN in PyTorch
alone: dropout of an infinite gradient, kl_div's gradient of its target, bce_with_logits of logits so large that PyTorch's slope
is 0, and var of infinite numbers.
"""
import torch
import torch.nn.functional as F

from case import *
from ops import reduce_references

ABOVE = [1., INF, -INF, NAN, 0.]


def crossed(*values):
    """Every combination of the values with every gradient of ABOVE, as one input for each list."""
    grid = torch.cartesian_prod(*[torch.tensor(v, dtype=torch.float64) for v in values],
        torch.tensor(ABOVE, dtype=torch.float64))
    return [V(column.tolist()) for column in grid.T[:-1]]


def kinks():
    at = lambda op, *args, ref=None, values: case(op, *crossed(values), *args, ref=ref, derivatives=1, above=ABOVE)
    points = [-INF, -1., -.5, 0., .5, 1., 2., INF, NAN]
    others = {"log_sigmoid": F.logsigmoid, "softplus": F.softplus, "silu": F.silu}
    for op in ("neg abs sign square relu exp exp2 expm1 log log2 log10 log1p sqrt rsqrt reciprocal sin cos tan asin acos "
               "atan sinh cosh tanh erf erfc floor ceil round trunc sigmoid log_sigmoid softplus silu relu6 hardtanh "
               "leaky_relu elu").split():
        at(op, ref=others.get(op), values=points + [6., -6.])
    for how in ("none", "tanh"): at("gelu", how, ref=lambda x, a: F.gelu(x, approximate=a), values=points[1:-2] + [NAN])
    for bounds in ((-.5, 1.), (None, .5), (0.,), (1., -1.), (-INF, INF), (2., 2.), (NAN, 1.), (0., NAN)): at("clamp", *bounds, values=points)
    at("leaky_relu", 0., values=points), at("nan_to_num", values=points[1:-2] + [NAN])
    # What PyTorch makes of a NaN here depends on where in memory it lies.
    at("hardtanh", -.5, 1., values=points[:-1]), at("elu", 1.5, values=points[:-1])
    for exponent in (0., 1., 2., .5, -1., 3):  # PyTorch takes a root of -infinity for a power of .5
        at("pow(Tensor, Scalar)", exponent, values=points[exponent == .5:])
    for base in (0., 1., 2., .5): case("pow(Scalar, Tensor)", base, *crossed(points), derivatives=1, above=ABOVE)
    for scalar in (0., 2., INF): at("mul(Tensor, Scalar)", scalar, values=points)
    few = [-INF, -1., 0., 1., 2., INF, NAN]
    for op in ("add", "sub", "mul", "div", "pow", "remainder", "fmod"):
        case(f"{op}(Tensor, Tensor)", *crossed(few, few), derivatives=1, above=ABOVE)
    for op in ("atan2", "maximum", "minimum"): case(op, *crossed(few, few), derivatives=1, above=ABOVE)
    ends = [-INF, -1., 0., 2., NAN]
    case("lerp(Tensor, Tensor, Tensor)", *crossed(ends[1:4], ends[1:4], [0., .25, .5, .75, 1., 2.]), derivatives=1, above=ABOVE)
    for weight in (0., .3, 1.): case("lerp(Tensor, Tensor, double)", *crossed(ends, ends), weight, derivatives=1, above=ABOVE)
    for op in ("addcmul", "addcdiv"):
        case(op, *crossed(ends, ends, ends), derivatives=1, above=ABOVE)
    mask = V([k % 3 == 0 for k in range(len(few) ** 2 * len(ABOVE))], torch.bool)
    case("where", mask, *crossed(few, few), derivatives=1, above=ABOVE)
    case("masked_fill", *crossed(few, few)[:1], mask, -1.5, derivatives=1, above=ABOVE)
    reductions(), losses(), windows()


ROWS = [[1., 2., 2., -1.], [0., 0., 0., 0.], [INF, 1., -2., 0.], [-INF, -INF, -INF, -INF], [NAN, 1., 2., 0.],
        [3., 3., 3., 3.], [0., 2., -3., 1.], [-1., -2., -2., -5.], [0., 0., 1., -2.], [.1, .1, .1, .1]]
FINITE = [row for row in ROWS if all(map(math.isfinite, row))]


def reductions():
    refs = reduce_references()
    for above in ABOVE:
        for op in ("sum", "mean", "amax", "amin", "logsumexp"):
            case(op, V(ROWS), [1], ref=refs[op], derivatives=1, above=[above])
        for op in ("prod", "var", "std"): case(op, V(FINITE), [1], ref=refs[op], derivatives=1, above=[above])
        for p in (0., .5, 1., 1.5, 2., 3., INF, -INF, -1., -2.5):
            case("norm", V(ROWS), p, [-1], ref=refs["norm"], derivatives=1, above=[above])
        for row in FINITE:
            case("prod", V(row), ref=refs["prod_of_all"], derivatives=1, above=[above])
            case("std", V(row), ref=refs["std"], derivatives=1, above=[above])
            case("norm", V(row), ref=refs["norm"], derivatives=1, above=[above])
    for above in ([1., INF, 2., 3.], [INF, -INF, 1., 1.], [1., NAN, 1., 1.], [0., 1., 0., INF]):
        case("cumsum", V(ROWS), -1, derivatives=1, above=above)
        case("softmax", V(ROWS), ref=lambda x: F.softmax(x, -1), derivatives=1, above=above)
        case("log_softmax", V(ROWS), ref=lambda x: F.log_softmax(x, -1), derivatives=1, above=above)
        case("sort", V([[3., 1., 2., 0.]]), ref=lambda x: torch.sort(x, dim=-1, stable=True), derivatives=1, above=above)
        case("max", V(ROWS[:3]), 1, derivatives=1, above=above)


def losses():
    rows = [[1., 2., 3.], [-INF, 2., 3.], [1., -INF, 0.], [2., 2., 2.], [INF, 1., 2.], [0., 0., -INF]]
    logs = [[-1., -2., -3.], [-INF, -2., -3.], [-1., -INF, -4.], [-1., -1., -1.], [-3., -1., -2.], [0., -5., -INF]]
    for labels in ([2, -100, 0, 1, -100, 1], [-100] * 6, [2, 1, 0, 2, 1, 0]):
        target = V(labels, torch.int64)
        for how in ("mean", "sum", "none"):
            for above in (1., INF, NAN) if how == "none" else (1.,):
                for op, x, ref in (("cross_entropy", rows, F.cross_entropy), ("nll_loss", logs, F.nll_loss)):
                    call = lambda x, y, o, ref=ref: ref(x, y, **o)
                    case(op, V(x), target, {"reduction": how}, ref=call, derivatives=1, above=[above])
                    for weight in ([1., 2., .5], [.5, 1., 3.]):
                        case(op, V(x), target, {"reduction": how, "weight": V(weight, grad=False)}, ref=call,
                            derivatives=1, above=[above])
                case("cross_entropy", V(rows[:1] * 6), target, {"reduction": how, "label_smoothing": .1},
                    ref=lambda x, y, o: F.cross_entropy(x, y, **o), derivatives=1, above=[above])
    for labels in ([0], [-100], [0, -100], [0, 2]):  # labels that are ignored, or whose class has a weight of 0
        for op, ref in (("cross_entropy", F.cross_entropy), ("nll_loss", F.nll_loss)):
            for how in ("mean", "sum", "none"):
                case(op, V(logs[:1] * len(labels)), V(labels, torch.int64), {"reduction": how, "weight": V([0., 1., 0.], grad=False)},
                     ref=lambda x, y, o, ref=ref: ref(x, y, **o), derivatives=1)
    points = [-INF, -2., -1., 0., .5, 1., 3., INF, NAN]
    for op, ref in (("mse_loss", F.mse_loss), ("l1_loss", F.l1_loss), ("huber_loss(1)", F.huber_loss)):
        args = (1., "none") if "(" in op else ("none",)
        call = lambda x, y, *a, ref=ref: ref(x, y, reduction="none")
        case(op.split("(")[0], *crossed(points, points[1:6]), *args, ref=call, derivatives=1, above=ABOVE)
    bce = lambda x, y, r: F.binary_cross_entropy_with_logits(x, y, reduction=r)
    case("bce_with_logits", *crossed([-30., -17., -1., 0., 1., 17., 30., NAN], [0., .25, 1.]), "none", ref=bce, derivatives=1,
         above=ABOVE)
    case("bce_with_logits", V([INF, INF]), V([0., .5], grad=False), "none", ref=bce, derivatives=0)
    kl = lambda x, y, r: F.kl_div(x, y, reduction=r)
    logs, shares = crossed([-INF, -2., 0., NAN], [.25, 1.])
    shares.grad = False
    case("kl_div", logs, shares, "none", ref=kl, derivatives=1, above=ABOVE)
    case("kl_div", V([-INF, -1., 0., -2.]), V([0., 0., 0., -1.], grad=False), "none", ref=kl, derivatives=1, above=ABOVE[:4])


def windows():
    image = [[[[1., 2., 2., -1.], [3., -INF, 2., 0.], [3., 0., INF, 1.], [-1., 1., 1., NAN]]]]
    for above in (ABOVE, ABOVE[1:], ABOVE[::-1]):
        case("max_pool2d", V(image), {"kernel": 2, "stride": 1}, ref=lambda x, o: F.max_pool2d(x, 2, 1), derivatives=1,
            above=above)
        case("avg_pool2d", V(image), {"kernel": 2, "stride": 2}, ref=lambda x, o: F.avg_pool2d(x, 2, 2), derivatives=1,
            above=above)
        case("adaptive_avg_pool2d", V(image), 2, 2, ref=lambda x, *s: F.adaptive_avg_pool2d(x, s), derivatives=1, above=above)
        case("adaptive_max_pool2d", V(image), 2, 2, ref=lambda x, *s: F.adaptive_max_pool2d(x, s), derivatives=1, above=above)
        case("interpolate", V(image), {"size": [7, 2]}, ref=lambda x, o: F.interpolate(x, **o), derivatives=1, above=above)
        case("embedding", V([[1., 2.], [3., 4.], [5., 6.]]), V([0, 2, 1, 2], torch.int64), 2,
            ref=lambda w, i, p: F.embedding(i, w, padding_idx=p), derivatives=1, above=above)
        case("gather", V([[1., 2., 3.]]), -1, V([[0, 2]], torch.int64), derivatives=1, above=above)
