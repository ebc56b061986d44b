"""Cases of ops, a function per family.

Special values under special gradients are in kinks.py.
"""
import operator

import torch
import torch.nn.functional as F

from case import *


def elementwise():
    domains = {"log": (0, 3), "log2": (0, 3), "log10": (0, 3), "log1p": (-.9, 3), "sqrt": (0, 3),
        "rsqrt": (.25, 3),
               "reciprocal": (.25, 3), "tan": (-1, 1), "asin": (-.9, .9), "acos": (-.9, .9)}
    unary = ("neg abs sign square relu exp exp2 expm1 log log2 log10 log1p sqrt rsqrt reciprocal sin cos tan asin acos "
             "atan sinh cosh tanh erf erfc floor ceil round trunc sigmoid log_sigmoid softplus silu").split()
    other = {"log_sigmoid": F.logsigmoid, "softplus": F.softplus, "silu": F.silu}
    for n, op in enumerate(unary):
        low, high = domains.get(op, (-2, 2))
        t = lambda *shape, layout="": T(*shape, low=low, high=high, layout=layout)
        case(op, t(2, 3), ref=other.get(op))
        case(op, t(3, 2, 2, layout=("transposed", "strided", "expanded")[n % 3]), ref=other.get(op))
        case(op, t() if n % 2 else t(2, 0), ref=other.get(op))
        case(op + "_", t(2, 3, layout=("strided", "transposed")[n % 2]), ref=other.get(op))
    kinks = [-INF, -6., -2., -1., -.5, 0., .5, 1., 1.5, 2.5, 3., 6., INF, NAN]
    for op in ("abs", "sign", "relu", "floor", "ceil", "round", "trunc", "leaky_relu"):
        case(op, V(kinks))
    for op in ("relu6", "hardtanh"):
        case(op, V(kinks[:-1])), case(op, V(kinks), derivatives=0)
    for op in ("exp", "tanh", "sigmoid", "erf", "isnan", "isinf", "isfinite", "expm1", "atan", "sqrt", "log"):
        case(op, V(kinks, grad=False), float32=False)
    case("log_sigmoid", V([-1000., -30., 0., 30., 1000.]), ref=F.logsigmoid)
    case("softplus", V([-1000., -30., 0., 15., 30., 1000.]), ref=F.softplus)
    case("nan_to_num", V([INF, -INF]), 3.5, float32=False), case("nan_to_num", V([1., NAN, -2.]), 3.5)
    case("nan_to_num", T(3, 2, layout="strided"))
    for how in ("none", "tanh"):
        case("gelu", T(2, 3, layout="transposed"), how, ref=lambda x, a: F.gelu(x, approximate=a))
    case("gelu", T(2, 3, low=-8, high=8))
    for op, args in (("leaky_relu", (.2,)), ("elu", (1.3,)), ("elu", ()), ("relu6", ()), ("hardtanh", (-.7,
        1.2)),
                     ("clamp", (-.7, 1.2)), ("clamp", (None, .5)), ("clamp", (.25,)), ("clamp_", (-1.,
                         None))):
        case(op, T(2, 3, low=-8, high=8), *args)
        case(op, T(3, 4, layout="strided"), *args)
    case("clamp", V([-1., -.5, 0., .5, 1.]), -.5, .5)
    for op in "add sub rsub mul div".split():
        case(op if op == "rsub" else f"{op}(Tensor, Scalar)", T(2, 3, layout="transposed"), 1.5)
    for exponent in (2., 3., .5, -1.5, 0., 1.):
        case("pow(Tensor, Scalar)", T(2, 3, low=.25), exponent)
    case("pow(Tensor, Scalar)", T(2, 3), 3.)
    case("pow(Scalar, Tensor)", 1.7, T(2, 3, layout="strided"))
    case("pow(Tensor, Tensor)", T(2, 3, low=.25), T(3))
    for n, op in enumerate(("add sub mul div atan2 remainder fmod maximum minimum "
                            "operator+ operator- operator* operator/").split()):
        ref = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}.get(op[-1])
        d = f"{op}(Tensor, Tensor)" if len(DECLARED[op]) > 1 else op
        order = 1 if op in ("remainder", "fmod") else 2
        for a, b in (((2, 3), (2, 3)), ((2, 1, 3), (4, 1)), ((), (2, 2)), ((0, 3), (1, 3))):
            case(d, T(*a, layout="transposed" if n % 2 else ""), T(*b, low=.25, layout="strided"), ref=ref,
                 derivatives=order)
        case(d, T(3, 2, layout="expanded"), T(2, low=.25), ref=ref, derivatives=order)
    for op, sign in (("operator+", operator.add), ("operator-", operator.sub), ("operator*", operator.mul),
                     ("operator/", operator.truediv)):
        case(f"{op}(Tensor, Scalar)", T(2, 3), 1.25, ref=sign)
        case(f"{op}(Scalar, Tensor)", 1.25, T(2, 3, low=.25), ref=sign)
    case("operator-(Tensor)", T(2, 3), ref=operator.neg)
    for op in ("maximum", "minimum"):
        case(op, V([1., 2., 3.]), V([1., 2.5, 2.]))
        case(op, V([1., NAN, 3.]), V([2., 1., NAN]),
            derivatives=0)
    case("lerp(Tensor, Tensor, double)", T(2, 3), T(3), .3)
    case("lerp(Tensor, Tensor, Tensor)", T(2, 3), T(2, 1), T(3))
    for op in ("addcmul", "addcdiv"):
        for args in ((), (.7,)):
            case(op, T(2, 3), T(3), T(2, 1, low=.25), *args,
                 ref=lambda x, a, b, value=1, op=op: getattr(torch, op)(x, a, b, value=value))
    case("where", B(2, 3), T(2, 3, layout="transposed"), T(3))
    case("where", B(3), T(), T(2, 1))
    case("masked_fill", T(2, 3), B(3), -1.5)
    case("masked_fill_", T(2, 3), B(2, 1), -1.5)
    for op in "eq ne lt le gt ge".split():
        case(f"{op}(Tensor, Tensor)", I(2, 1, 3, layout="transposed"), I(2, 1))
        case(f"{op}(Tensor, Tensor)", T(2, 3), T(2, 3, layout="strided"))
        case(f"{op}(Tensor, Scalar)", I(3, 4, high=3, dtype=torch.int64), 1.)
    for op in ("logical_and", "logical_or", "logical_xor"):
        case(op, B(2, 3), B(3))
        case(op, I(2, 3, high=2), V([0., NAN, 2.]))
    case("logical_not", B(2, 3))
    for op in ("isnan", "isinf", "isfinite"):
        case(op, T(2, 3))
    for dtype in ("float32", "int64", "uint8", "bool"):
        case("to(Tensor, DType)", T(2, 3, low=0, high=7, layout="transposed"), dtype, ref=lambda x, d: x.to(getattr(torch,
            d)),
             derivatives=1, float32=dtype != "float32")
    for op in ("add_(Tensor, Tensor)", "sub_", "mul_(Tensor, Tensor)", "div_"):
        case(op, T(2, 3), T(3, low=.25))
        case(op, T(2, 3, layout="transposed"), T(2, 1, low=.25))
    for op in ("add_(Tensor, Scalar)", "mul_(Tensor, Scalar)", "fill_"):
        case(op, T(2, 3), 1.75)
    case("zero_", T(2, 3))
    case("copy_", T(2, 3), T(3, layout="strided"))
    for op in ("add", "mul", "div"):
        for a, b in ((torch.int64, torch.int64), (torch.uint8, torch.int64), (torch.int64, torch.float32),
                     (torch.bool, torch.int64), (torch.bool, torch.float64)):
            case(f"{op}(Tensor, Tensor)", I(2, 3, high=2, dtype=a), I(3, low=1,
                high=2 if b == torch.bool else 7, dtype=b),
                 derivatives=0, float32=False)
    for op in ("add", "sub", "rsub", "mul", "div"):
        case(op if op == "rsub" else f"{op}(Tensor, Scalar)", I(2, 3), 2.5, derivatives=0)
    case("exp", I(2, 3), derivatives=0)
    for op in ("remainder", "fmod", "floor_divide"):
        for d in (f"{op}(Tensor, Tensor)", f"{op}(Tensor, Scalar)"):
            numbers, whole = (V([3., -3, 2, -5], grad=False), V([3, -3, 2, -5],
                torch.int64)) if "r, T" in d else (-2.5, 3.)
            case(d, T(3, 4, low=-9, high=9, layout="strided"), numbers,
                derivatives=0 if op == "floor_divide" else 1)
            case(d, I(3, 4, low=-9, high=9), whole, ref=lambda x, y, op=op: getattr(torch, op)(x,
                int(y) if isinstance(y, float) else y))
    whole_numbers()


def whole_numbers():
    """int64 beyond what float64 can hold."""
    low, high, odd = -2**63, 2**63 - 1, 2**53 + 1
    ends = V([low, low + 1, -odd, -1, 0, 1, 2, odd, high - 1, high], torch.int64)
    for bounds in ((0, None), (None, 0), (-odd, odd), (odd, high - 1), (low + 1, None), (5, -5)): case("clamp", ends, *bounds)
    for op in ("add", "sub", "rsub", "mul"):
        for number in (1, -1, odd, high): case(op if op == "rsub" else f"{op}(Tensor, Scalar)", ends, number)
    for op in ("remainder", "fmod", "floor_divide"):
        for number in (odd, -odd, high): case(f"{op}(Tensor, Scalar)", ends, number)
    for op in "eq ne lt le gt ge".split():
        for number in (odd, high, low, -odd): case(f"{op}(Tensor, Scalar)", ends, number)
    for exponent in (0, 1, 2, 3, 63): case("pow(Tensor, Scalar)", ends, exponent)
    case("pow(Scalar, Tensor)", 3, V([0, 1, 2, 39, 63], torch.int64))
    case("pow(Scalar, Tensor)", -1, V([-3, -2, 0, 7], torch.int64))
    case("pow(Tensor, Tensor)", V([3, -1, -1, 1, 2, 0, 2], torch.int64), V([39, -3, -2, -5, -1, 0, 62], torch.int64))
    for number in (odd, high, low):
        case("masked_fill", ends, B(10), number), case("masked_fill_", ends, B(10), number), case("fill_", ends, number)
        case("add_(Tensor, Scalar)", ends, number), case("mul_(Tensor, Scalar)", ends, number)
    case("clamp_", ends, odd, high - 1), case("where", B(10), ends, V(odd, torch.int64))
    for op in ("abs", "neg", "sign", "square", "relu", "floor", "ceil", "round", "trunc"): case(op, ends)
    for op in ("maximum", "minimum"): case(op, ends, V(odd, torch.int64))
    for dtype in ("float64", "float32", "bool"):
        case("to(Tensor, DType)", ends, dtype, ref=lambda x, d: x.to(getattr(torch, d)), float32=dtype == "bool")
    case("addcmul", ends, V(odd, torch.int64), V(3, torch.int64), 5, ref=lambda x, a, b, v: torch.addcmul(x, a, b, value=v))
    case("nan_to_num", ends), case("nan_to_num", B(3))


def reduce_references():
    """PyTorch's functions with Trireme's arguments: (x, dims, further ones)."""
    keep = lambda fn: lambda x, dims=(), keepdim=False: fn(x, dim=tuple(dims) or None, keepdim=keepdim)
    def prod(x, dims=(), keepdim=False):
        for d in sorted((d % x.dim() for d in dims or range(x.dim())), reverse=True): x = x.prod(d, keepdim)
        return x
    def extreme(fn):
        return lambda x, dims=(), keepdim=False: fn(x, dim=tuple(dims), keepdim=keepdim)
    def spread(fn):
        return lambda x, dims=(), correction=1, keepdim=False: fn(
            x, dim=tuple(dims) or None, correction=correction, keepdim=keepdim)
    def p_norm(x, p=2, dims=(), keepdim=False):
        return torch.linalg.vector_norm(x, p, tuple(dims) or None, keepdim)
    return {"sum": keep(torch.sum), "mean": keep(torch.mean), "prod": prod, "amax": extreme(torch.amax),
            "amin": extreme(torch.amin), "var": spread(torch.var), "std": spread(torch.std),
            "logsumexp": lambda x, dims, keepdim=False: torch.logsumexp(x, tuple(dims), keepdim), "norm": p_norm,
            "prod_of_all": lambda x: x.prod()}


def reduce():
    every = reduce_references()
    keep = lambda fn: lambda x, dims=(), keepdim=False: fn(x, dim=tuple(dims) or None, keepdim=keepdim)
    prod, p_norm = every["prod"], every["norm"]
    refs = {op: every[op] for op in ("sum", "mean", "prod", "amax", "amin")}
    for op, ref in refs.items():
        case(op, T(2, 3), ref=ref)
        case(op, T(2, 3, 2, layout="transposed"), [-1], ref=ref)
        case(op, T(2, 3, 2, layout="strided"), [0, -1], True, ref=ref)
        case(op, T(3, 4, layout="expanded"), [0], ref=ref)
        case(op, T(), ref=ref)
        case(op, T(2, 0, 3), [-1], ref=ref)
    for op in ("sum", "prod"):
        case(op, T(2, 0, 3), [1], ref=refs[op])
        case(op, I(2, 3), [0], ref=refs[op])
        case(op, B(2, 3), ref=refs[op])
    for op in ("amax", "amin"): case(op, V([[1., 2, 2], [2, 1, 1]]), [1], ref=refs[op])
    case("prod", V([[0., 2, 3], [0, 0, 4], [5, 6, 7]]), [1], ref=prod)
    for op in ("var", "std"):
        case(op, T(2, 3), ref=every[op])
        case(op, T(2, 3, 2, layout="transposed"), [-1, 0], 0., True, ref=every[op])
        case(op, T(4, 3, layout="strided"), [0], 1.5, ref=every[op])
        case(op, T(0, 3), [1], ref=every[op])
    for p in (1., 2., 3., 1.5, INF):
        case("norm", T(2, 3, layout="transposed"), p, [-1], ref=p_norm)
        case("norm", T(2, 2), p, ref=p_norm)
    case("logsumexp", T(2, 3), [1], True, ref=keep(torch.logsumexp))
    case("logsumexp", V([[1000., 1001.], [-1000, -1002]]), [-1], ref=keep(torch.logsumexp))
    case("logsumexp", T(2, 3, 2, layout="strided"), [0, 2], ref=keep(torch.logsumexp))
    for op, fn in (("any", torch.any), ("all", torch.all)):
        case(op, B(3, 2), ref=keep(fn))
        case(op, B(3, 2, layout="transposed"), [-1], ref=keep(fn))
        case(op, B(0, 2), [0], ref=keep(fn))
    for op in ("argmax", "argmin"):
        case(op, T(3, 4, layout="strided"), ref=lambda x, d=-1, k=False, op=op: getattr(torch, op)(x, d, k))
        case(op, V([[2, 1, 2, 1], [3, 3, 0, 0]], torch.int64), 1, True)
        case(op, T(3, 4), -2)
        case(op, V([[1., NAN, 2.], [NAN, 5., NAN]]), 1)
    for x in (T(2, 3), T(2, 3, layout="transposed"), I(2, 3), T(2, 0), T(3, 2, layout="expanded")):
        case("cumsum", x, -1)
        case("cumsum", x, 0)
    for shape in ([3], [2, 1, 3], [1, 1], []):
        case("sum_to", T(2, 4, 3, layout="transposed"), shape, ref=lambda x, s: x.sum_to_size(s))
    for correction in (2., 3., 5.):  # rows of 3 numbers, so 1, 0 and -2 degrees of freedom
        for op in ("var", "std"): case(op, T(2, 3), [1], correction, ref=every[op], derivatives=1)
    case("logsumexp", T(2, 0), [1], ref=every["logsumexp"]), case("logsumexp", T(0, 3), [0, 1], True, ref=every["logsumexp"])


def shape():
    case("reshape", T(2, 3, 2), [3, -1]), case("reshape", T(2, 3, layout="transposed"), [6])
    case("reshape", T(0, 3), [3, 0])
    case("flatten", T(2, 3, 2)), case("flatten", T(2, 3, 2, layout="strided"), -2, -1), case("flatten", T())
    case("permute", T(2, 3, 4), [2, 0, -2]), case("permute", T(2, 0, 4, layout="transposed"), [1, 2, 0])
    case("transpose", T(2, 3, 4), -1, 0), case("transpose", T(2, 3, layout="expanded"), 0, 1)
    case("expand", T(2, 1, 3), [4, 2, 5, 3], ref=lambda x, s: x.expand(s))
    case("expand", T(), [2, 2], ref=lambda x, s: x.expand(s))
    case("narrow", T(3, 4, layout="transposed"), -1, 1, 2), case("narrow", T(3, 4), 0, 1, 0)
    case("squeeze", T(2, 1, 3), -2), case("squeeze", T(2, 3), 0)
    case("unsqueeze", T(2, 3, layout="strided"), -1)
    case("unsqueeze", T(), 0)
    case("cat", [T(2, 3), T(1, 3, layout="strided"), T(0, 3)])
    case("cat", [T(2, 1, 2), T(2, 3, 2, layout="transposed")], -2)
    case("cat", [I(2, 2), I(1, 2)])
    case("stack", [T(2, 3), T(2, 3, layout="transposed"), T(2, 3)], -1), case("stack", [T(), T()])
    same = lambda x: x * 1
    case("contiguous", T(2, 3, layout="transposed"), ref=same), case("channels_last", T(2, 3, 2, 2), ref=same)
    case("channels_last", T(2, 3, 2, 2, layout="channels_last"), ref=same)
    case("select", T(2, 3, 4), -2, -1), case("select", T(3, 2, layout="strided"), 0, 1)
    sized, listed = (f"split(Tensor, {kind}, int)" for kind in ("std::int64_t", "std::vector<std::int64_t>"))
    case(sized, T(5, 2), 2), case(sized, T(2, 5, layout="transposed"), 3, -1)
    case(listed, T(5, 2), [1, 0, 4])
    case("chunk", T(5, 2), 3), case("chunk", T(2, 4, layout="strided"), 2, -1)
    case("repeat", T(2, 3), [2, 1, 2], ref=lambda x, s: x.repeat(s))
    case("repeat", T(3), [0, 2], ref=lambda x, s: x.repeat(s))
    case("flip", T(2, 3, 2), [0, -1]), case("flip", T(2, 3, layout="expanded"), [1])
    case("roll", T(2, 5), 2, -1), case("roll", T(3, 2, layout="transposed"), -4, 0)
    pad = lambda x, sizes, value=0.: F.pad(x, sizes, value=value)
    case("pad", T(2, 3), [1, 2], ref=pad)
    case("pad", T(2, 3, 4, layout="strided"), [1, -1, 0, 2], 1.5, ref=pad)
    case("pad", T(0, 2), [1, 1, 1, 0], ref=pad)
    case("unfold", T(2, 7), -1, 3, 2, ref=lambda x, *a: x.unfold(*a))
    case("unfold", T(6, 2, layout="transposed"), 0, 3, 1, ref=lambda x, *a: x.unfold(*a))
    for op in ("tril", "triu"):
        case(op, T(3, 4)), case(op, T(2, 3, 3, layout="transposed"), -1), case(op, T(3, 0), 1)
        case(op, I(4, 3), 1)
    case("diagonal", T(3, 4)), case("diagonal", T(3, 4, 2, layout="strided"), 1, -1, 0)
    case("diagonal", T(3, 2), -5)
    case("outer", T(3), T(2, layout="strided")), case("outer", T(0), T(2))
    to = lambda fn: lambda *a: fn(*a[:-1], dtype=getattr(torch, a[-1]))
    case("arange", 1., 9., 2.5, "float64", ref=to(torch.arange), float32=False)
    case("arange", 5., 0., -2., "int64", ref=to(torch.arange))
    case("linspace", -1., 2., 5, "float64", ref=to(torch.linspace), float32=False)
    case("linspace", 1., 2., 1, "float32", ref=to(torch.linspace))
    case("eye", 2, 3, "float64", ref=to(torch.eye), float32=False), case("eye", 2, 2, "int64", ref=to(torch.eye))
    for size, times in (((1, 1, 1, 1, 2), [1, 2, 1, 1, 2]), ((2, 1, 2, 1, 2), [2, 2, 2, 2, 2, 2]),
                        ((2,) * 5, [2, 1, 2, 2, 2]), ((2,) * 5, [2] * 5), ((2, 1, 2), [1, 1, 1, 1, 1, 3, 1, 2])):
        case("repeat", T(*size), times, ref=lambda x, s: x.repeat(s), derivatives=1)
    for first, last, count in ((0, 7, 445), (7, 0, 11), (-7, 7, 12), (-3, 3, 1), (2, 5, 0)):
        case("linspace", first, last, count, "int64", ref=to(torch.linspace))
        case("linspace", float(first), float(last), count, "float64", ref=to(torch.linspace), float32=False)
    case("arange", 2**53, 2**53 + 5, 1, "int64", ref=to(torch.arange))
    case("narrow", T(3, 4), -1, -3, 2), case("narrow", T(3, 4, layout="transposed"), 0, -1, 1), case("narrow", T(3), 0, -3, 0)
    case("cat", [T(0), T(2, 3)]), case("cat", [T(2, 3), T(0), T(2, 1)], -1), case("cat", [T(0), T(0)])


def index():
    for layout in ("", "transposed", "strided"):
        case("gather", T(3, 4, layout=layout), -1, I(3, 2, high=4))
        case("gather", T(3, 4), 0, I(2, 4, high=3, layout=layout))
        case("scatter_add", T(3, 4, layout=layout), 0, I(5, 4, high=3), T(5, 4))
        case("index_select", T(3, 4, layout=layout), -1, I(5, high=4))
        case("index_add", T(3, 4, layout=layout), -2, I(5, high=3), T(5, 4))
        case("embedding", T(5, 3, layout=layout), I(2, 3), ref=lambda w, i: F.embedding(i, w))
    case("gather", T(3, 4), 1, I(3, 0)), case("index_select", T(3, 0), 0, I(2, high=3))
    case("scatter", T(3, 4), -1, V([[0, 3], [1, 2], [3, 0]], torch.int64), T(3, 2))
    case("scatter", T(3, 4, layout="transposed"), 0, V([[2, 0, 1, 1]], torch.int64), T(1, 4))
    case("take_along_dim", T(3, 4), I(1, 4, high=3), 0, ref=lambda x, i, d: torch.take_along_dim(x, i, d))
    case("take_along_dim", T(2, 1, 4), I(1, 3, 5, high=4), -1, ref=lambda x, i, d: torch.take_along_dim(x,
        i, d))
    case("embedding", T(5, 3), I(4), 2, ref=lambda w, i, p: F.embedding(i, w, padding_idx=p))
    at = lambda x, i: x[tuple(i)]
    case("index", T(3, 4, 2), [I(2, 3, low=-3, high=3), I(3, low=-4, high=4)], ref=at)
    case("index", T(3, 4, layout="transposed"), [I(4, high=3)], ref=at)
    case("index", T(3, 4), [I(0, high=3)], ref=at)
    put = lambda x, i, v, accumulate=False: torch.index_put(x, tuple(i), v, accumulate)
    case("index_put", T(4, 3), [V([0, -1], torch.int64)], T(3), ref=put)
    case("index_put", T(4, 3, layout="strided"), [I(5, high=4), I(5, high=3)], T(5), True, ref=put)
    case("nonzero", I(3, 4, high=2)), case("nonzero", B(2, 2, 2, layout="transposed"))
    case("nonzero", V([0., -1., NAN]))
    case("masked_select", T(3, 4), B(3, 4)), case("masked_select", T(3, 1, layout="strided"), B(2, 1, 4))
    stable = lambda x, dim=-1, descending=False: torch.sort(x, dim=dim, descending=descending, stable=True)
    for x in (T(3, 4), T(3, 4, layout="transposed"), V([[2., NAN, 1, 2], [1, 1, NAN, 0]]), T(2, 0), T(),
        I(4, 3, high=3)):
        case("sort", x, ref=stable), case("argsort", x, -1, True, ref=lambda *a: stable(*a)[1])
    case("sort", T(3, 4, layout="strided"), 0, True, ref=stable)
    case("topk", T(3, 5), 2), case("topk", T(5, 3, layout="transposed"), 3, 0, False)
    for op in ("max", "min"):
        case(op, T(3, 4), 0), case(op, T(3, 4, 2, layout="transposed"), -2, True)
        case(op, V([[1., NAN, 3], [2, 2, 1]]), 1)
        case(op, I(3, 4, high=3), 1), case(op, T(0, 3), -1)
    case("one_hot", I(2, 3)), case("one_hot", I(3, layout="strided"), 7)
    case("index", T(3, 4), [B(3, 4)], ref=at), case("index", T(3, 4, 2), [B(3)], ref=at)
    case("index", T(3, 4, 2), [V([0], torch.int64), B(4)], ref=at), case("index", T(2, 3, 2), [B(2, 3)], ref=at)
    case("index", T(3, 2), [V([False] * 3, torch.bool)], ref=at)
    case("index_put", T(3, 4), [B(3, 4)], T(), ref=put), case("index_put", T(3, 4), [B(3)], T(4), True, ref=put)
    # PyTorch takes a larger source, but not in backward.
    cut = lambda op: lambda x, dim, i, source: op(x, dim, i, source[:i.shape[0], :i.shape[1]])
    case("scatter", T(3, 4), -1, V([[0, 3], [1, 2]], torch.int64), T(3, 4), ref=cut(torch.scatter))
    case("scatter", T(3, 4, layout="transposed"), 0, V([[2, 0, 1]], torch.int64), T(2, 5, layout="strided"),
         ref=cut(torch.scatter))
    case("scatter_add", T(3, 4), 1, I(2, 3, high=4), T(3, 5, layout="transposed"), ref=cut(torch.scatter_add))
    case("embedding", T(5, 3), V([4, 0, 3, 4], torch.int64), -1, ref=lambda w, i, p: F.embedding(i, w, padding_idx=p))
    zero, zeros = V(0, torch.int64), V([0, 0], torch.int64)
    for x, i in ((T(), zero), (T(), zeros), (T(3), zero)): case("gather", x, 0, i)
    for op in ("scatter", "scatter_add"): case(op, T(), -1, zero, T())
    case("index_select", T(3, 4), -1, V(2, torch.int64)), case("index_select", T(), 0, zero)
    case("index_select", T(), 0, V([0], torch.int64)), case("index_add", T(3, 2), 0, V(1, torch.int64), T(1, 2))
    for op in ("max", "min"): case(op, T(), 0), case(op, T(), -1, True)
    case("topk", T(), 1)


def linear():
    case("bmm", T(2, 3, 4), T(2, 4, 2))
    case("bmm", T(2, 3, 4, layout="transposed"), T(2, 4, 2, layout="strided"))
    case("bmm", T(2, 3, 0), T(2, 0, 2)), case("bmm", T(0, 3, 4), T(0, 4, 2))
    case("bmm", T(2, 3, 4, layout="expanded"), T(2, 4, 2))
    for a, b in (((3, 4), (4, 2)), ((4,), (4,)), ((3, 4), (4,)), ((4,), (4, 2)), ((2, 1, 3, 4), (5, 4, 2)),
        ((2, 3, 4), (4, 2)),
                 ((4,), (2, 4, 3)), ((0, 4), (4, 2)), ((3, 0), (0, 2)), ((2, 3, 4), (4,))):
        case("matmul", T(*a), T(*b)), case("matmul", T(*a, layout="transposed"), T(*b, layout="strided"))
    for b in ([], [T(2)]):
        case("linear", T(3, 4), T(2, 4), *b)
        case("linear", T(2, 3, 4, layout="transposed"), T(2, 4, layout="transposed"), *b)
        case("linear", T(4), T(2, 4), *b), case("linear", T(0, 4), T(2, 4), *b)
    for e, *shapes in (("bij,bjk->bik", (2, 3, 4), (2, 4, 2)), ("ij->ji", (2, 3)), ("i,j,k->ijk", (2,),
        (3,), (2,)), ("ij,ij->", (2, 3), (2, 3)),
                       ("bhld,bhsd->bhls", (2, 2, 3, 2), (2, 2, 4, 2)), ("ii->i", (3, 3)), ("ij,jk", (2, 3),
                           (3, 2))):
        case("einsum", e, [T(*s, layout="strided") for s in shapes], ref=lambda e, ops: torch.einsum(e, *ops))


def conv():
    def conv_ref(op):
        return lambda x, w, b=None, o={}: getattr(F, op)(x, w, b, **o)
    for o in ({}, {"stride": 2, "padding": 1}, {"dilation": 2, "padding": 2}, {"groups": 2}, {"stride": 2,
        "groups": 4, "padding": 1}):
        for layout, b in (("", None), ("channels_last", T(4)), ("transposed", T(4))):
            case("conv2d", T(2, 4, 5, 4, layout=layout), T(4, 4 // o.get("groups", 1), 3, 2), b, o,
                ref=conv_ref("conv2d"))
        case("conv1d", T(2, 4, 6, layout="strided"), T(4, 4 // o.get("groups", 1), 3), T(4), o,
            ref=conv_ref("conv1d"))
        extra = {**o, **({"output_padding": 1} if "stride" in o else {})}
        case("conv_transpose2d", T(2, 4, 3, 3, layout="channels_last"), T(4, 4 // o.get("groups", 1), 3, 2),
            T(4), extra, ref=conv_ref("conv_transpose2d"))
    case("conv2d", T(1, 3, 4, 4, layout="expanded"), T(2, 3, 1, 1), ref=conv_ref("conv2d"))
    case("conv2d", T(0, 3, 4, 4), T(2, 3, 3, 3), T(2), ref=conv_ref("conv2d"))
    pool = lambda op: lambda x, o={}: getattr(F, op)(x, o.get("kernel", 2), o.get("stride") or None,
        o.get("padding", 0))
    for op in ("max_pool2d", "avg_pool2d"):
        for layout in ("", "channels_last", "transposed"):
            case(op, T(2, 3, 4, 6, layout=layout), ref=pool(op))
            case(op, T(2, 2, 5, 5, layout=layout), {"kernel": 3, "stride": 2, "padding": 1}, ref=pool(op))
            case(op, T(1, 2, 5, 4, layout=layout), {"kernel": 3, "stride": 1}, ref=pool(op))
    for size in ((1, 1), (2, 3), (5, 4), (7, 2)):
        case("adaptive_avg_pool2d", T(2, 2, 5, 4, layout="channels_last" if size[0] < 5 else ""), *size,
            ref=lambda x, h, w: F.adaptive_avg_pool2d(x, (h, w)))
        if size[0] < 7: case("adaptive_max_pool2d", T(2, 2, 5, 4), *size, ref=lambda x, h,
            w: F.adaptive_max_pool2d(x, (h, w)))
    case("max_pool2d", T(2, 2, 7, 6), {"kernel": 3, "stride": 2, "dilation": 2, "padding": 1,
        "ceil_mode": True},
         ref=lambda x, o: F.max_pool2d(x, o["kernel"], o["stride"], o["padding"], o["dilation"],
             o["ceil_mode"]))
    for o in ({"size": [5, 3]}, {"scale_factor": [2., 1.5]}, {"size": [7, 2], "mode": "bilinear"},
        {"size": [5, 6], "mode": "bilinear", "align_corners": True},
              {"scale_factor": [1.5, .5], "mode": "bilinear"}):
        for layout in ("", "channels_last"): case("interpolate", T(2, 2, 3, 4, layout=layout), o,
            ref=lambda x, o: F.interpolate(x, **o))
    for layout in ("", "channels_last", "strided"): case("global_avg_pool2d", T(2, 3, 2, 4, layout=layout),
        ref=lambda x: x.mean((2, 3)))
    for o in ({"dilation": 3, "output_padding": 2, "padding": 1}, {"dilation": 3, "output_padding": 2},
              {"stride": 2, "dilation": 4, "output_padding": 3, "groups": 2}):  # a stride or more
        case("conv_transpose2d", T(2, 4, 3, 2), T(4, 2, 2, 2), T(2 * o.get("groups", 1)), o,
            ref=conv_ref("conv_transpose2d"))
    for k, s, p, size in ((3, 2, 0, (2, 2)), (3, 2, 1, (4, 5)), (2, 3, 1, (6, 5)), (3, 3, 0, (4, 4)), (5, 4, 2, (3, 7)),
                          (4, 3, 0, (2, 3)), (2, 2, 0, (5, 5))):
        o = {"kernel": k, "stride": s, "padding": p, "ceil_mode": True}
        case("max_pool2d", T(1, 2, *size), o, ref=lambda x, o, k=k, s=s, p=p: F.max_pool2d(x, k, s, p, 1, True))
        case("avg_pool2d", T(1, 2, *size), o, ref=lambda x, o, k=k, s=s, p=p: F.avg_pool2d(x, k, s, p, True))
    # PyTorch steps by half a pixel where a size doubles, whatever the scale factor is.
    for scales in ([2.3, 1.7], [2.2, 2.]):
        case("interpolate", T(1, 1, 3, 4), {"scale_factor": scales}, ref=lambda x, o: F.interpolate(x, **o))


def norm():
    def batch_norm(x, gamma, beta, residual, o, mean=None, var=None):
        measured = () if mean is not None else (x.detach().mean((0, 2, 3)), x.detach().var((0, 2, 3),
            correction=0))
        y = F.batch_norm(x, mean, var, gamma, beta, mean is None, 0., o.get("eps", 1e-5))
        y = y if residual is None else y + residual
        return (y.relu() if o.get("relu") else y, *measured)
    for o in ({}, {"eps": .1}, {"relu": True}):
        for layout in ("", "channels_last"):
            case("batch_norm", T(3, 2, 2, 3, layout=layout), T(2), T(2), None, o, ref=batch_norm)
            case("batch_norm", T(2, 2, 3, 2, layout=layout), T(2), T(2), T(2, 2, 3, 2), o, ref=batch_norm)
            case("batch_norm", T(2, 2, 3, 2, layout=layout), T(2), T(2), None, o, T(2, grad=False), T(2,
                low=.5, grad=False), ref=batch_norm)
    def layer_norm(x, g=None, b=None, eps=1e-5): return F.layer_norm(x,
        x.shape[-(g.dim() if g is not None else 1):], g, b, eps)
    def rms_norm(x, g=None, eps=1e-6): return F.rms_norm(x, x.shape[-(g.dim() if g is not None else 1):], g,
        eps)
    def group_norm(x, n, g=None, b=None, eps=1e-5): return F.group_norm(x, n, g, b, eps)
    for layout in ("", "transposed", "strided", "expanded"):
        case("layer_norm", T(3, 5, layout=layout), ref=layer_norm)
        case("layer_norm", T(2, 3, 4, layout=layout), T(3, 4), T(3, 4), .01, ref=layer_norm)
        case("layer_norm", T(2, 3, 4, layout=layout), T(4), ref=layer_norm)
        case("rms_norm", T(3, 5, layout=layout), ref=rms_norm)
        case("rms_norm", T(2, 3, 4, layout=layout), T(4), .01, ref=rms_norm)
        case("group_norm", T(2, 4, 3, layout=layout), 2, T(4), T(4), ref=group_norm)
        case("group_norm", T(2, 4, 2, 2, layout=layout), 4, ref=group_norm)
    case("layer_norm", T(0, 4), T(4), T(4), ref=layer_norm), case("rms_norm", T(0, 4), T(4), ref=rms_norm)


def loss():
    for op in ("softmax", "log_softmax"):
        for x, dim in ((T(2, 3), -1), (T(2, 3, 4, layout="transposed"), 1), (T(3, 2, layout="strided"), 0),
            (T(0, 3), -1), (V([[1000., 1001], [-1000, -900]]), -1),
                       (V([[-INF, 1., 2.]]), 1)):
            case(op, x, dim)
    nll = lambda op: lambda x, y, o={}: getattr(F, op)(x, y, **o)
    for op in ("cross_entropy", "nll_loss"):
        for reduction in ("mean", "sum", "none"):
            case(op, T(4, 5, layout="transposed"), I(4), {"reduction": reduction}, ref=nll(op))
            case(op, T(2, 5, 3), I(2, 3), {"reduction": reduction, "ignore_index": 1, "weight": T(5,
                low=.25, grad=False)}, ref=nll(op))
            case("cross_entropy", T(4, 5), I(4), {"reduction": reduction, "label_smoothing": .2,
                "ignore_index": 2, "weight": T(5, low=.25, grad=False)}, ref=nll("cross_entropy"))
        case(op, T(4, 5, layout="strided"), I(4), ref=nll(op))
    refs = {"mse_loss": F.mse_loss, "l1_loss": F.l1_loss, "huber_loss": F.huber_loss,
        "bce_with_logits": F.binary_cross_entropy_with_logits, "kl_div": F.kl_div}
    for op, fn in refs.items():
        for reduction in ("mean", "sum", "none"):
            args = (.7, reduction) if op == "huber_loss" else (reduction,)
            ref = lambda x, y, *a, fn=fn: fn(x, y, reduction=a[-1], **({"delta": a[0]} if len(a) > 1 else {}))
            case(op, T(2, 3, layout="transposed"), T(2, 3, low=.125, high=.875), *args, ref=ref)
        case(op, T(3, 2, layout="expanded"), T(3, 2, low=.125, high=.875), ref=fn)
        case(op, T(4, low=-8, high=8), T(4, low=.125, high=.875), ref=fn)
    for op in ("softmax", "log_softmax"): case(op, T(), -1, ref=getattr(F, op))


def recurrent():
    def attention(q, k, v, o={}):
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH): return F.scaled_dot_product_attention(q, k, v, **o)
    for o in ({}, {"is_causal": True}, {"scale": .3}, {"attn_mask": V([[True, False, True, True], [False,
        True, True, False], [True, True, True, True]], torch.bool)},
              {"attn_mask": T(3, 4)}, {"attn_mask": T(2, 1, 3, 4)}):
        for layout in ("", "transposed", "strided"):
            case("scaled_dot_product_attention", T(2, 2, 3, 4, layout=layout), T(2, 2, 4, 4, layout=layout),
                T(2, 2, 4, 3), o, ref=attention)
        if "attn_mask" not in o: case("scaled_dot_product_attention", T(3, 4), T(4, 4), T(4, 2), o,
            ref=attention)
    def lstm_gates(gates, c):
        i, f, g, o = gates.chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c
    def gru_gates(gi, gh, h):
        (ri, zi, ni), (rh, zh, nh) = gi.chunk(3, 1), gh.chunk(3, 1)
        z = (zi + zh).sigmoid()
        return (1 - z) * (ni + (ri + rh).sigmoid() * nh).tanh() + z * h
    lstm = lambda x, h, c, *w: torch.lstm_cell(x, (h, c), *w)
    tensors_ = lambda op, n: f"{op}({', '.join(['Tensor'] * n)})"
    for layout in ("", "transposed", "strided"):
        case(tensors_("lstm_cell", 2), T(2, 12, layout=layout), T(2, 3), ref=lstm_gates)
        case(tensors_("gru_cell", 3), T(2, 9, layout=layout), T(2, 9), T(2, 3, layout=layout), ref=gru_gates)
        for bias in (lambda n: [], lambda n: [T(n), T(n)]):
            x, h = T(2, 4, layout=layout), T(2, 3, layout=layout)
            case(tensors_("lstm_cell", 7), x, h, T(2, 3), T(12, 4, low=-1, high=1), T(12, 3, low=-1,
                high=1), *bias(12), ref=lstm)
            case(tensors_("gru_cell", 6), x, h, T(9, 4, low=-1, high=1), T(9, 3, low=-1, high=1), *bias(9))
            for op in ("rnn_tanh_cell", "rnn_relu_cell"): case(op, x, h, T(3, 4, low=-1, high=1), T(3, 3,
                low=-1, high=1), *bias(3))
