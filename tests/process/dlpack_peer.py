"""Run inside interchange_program by test_pytorch.py: NumPy, PyTorch and we look into each other's arrays."""
import ctypes
import gc
import weakref

import numpy
import torch

ours = ctypes.CDLL(None)
python = ctypes.pythonapi
for name, result in (("take", ctypes.c_void_p), ("double", None), ("sum", ctypes.c_double), ("data", ctypes.c_void_p),
                     ("give", ctypes.c_void_p), ("drop", None)):
    function = getattr(ours, "trireme_" + name)
    function.restype, function.argtypes = result, [ctypes.c_void_p]
python.PyCapsule_GetPointer.restype, python.PyCapsule_GetPointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
python.PyCapsule_SetName.argtypes = [ctypes.py_object, ctypes.c_char_p]
python.PyCapsule_New.restype, python.PyCapsule_New.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
VERSIONED, USED = b"dltensor_versioned", b"used_dltensor_versioned"


def take(array):
    """Our tensor over an array's memory, or None."""
    capsule = array.__dlpack__(max_version=(1, 0))
    tensor = ours.trireme_take(python.PyCapsule_GetPointer(capsule, VERSIONED))
    if tensor:
        python.PyCapsule_SetName(capsule, USED)
    return tensor


class Given:
    """What their from_dlpack() reads our tensor from."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __dlpack__(self, **options):
        return python.PyCapsule_New(ours.trireme_give(self.tensor), VERSIONED, None)

    def __dlpack_device__(self):
        return 1, 0


# Theirs, seen by us: NumPy's memory, strides and lifetime.
array = numpy.arange(12, dtype=numpy.float32).reshape(3, 4)[1:, ::2]
gone = weakref.ref(array)
tensor = take(array)
assert ours.trireme_data(tensor) == array.ctypes.data
ours.trireme_double(tensor)
assert array.tolist() == [[8, 12], [16, 20]] and ours.trireme_sum(tensor) == 56
del array
gc.collect()
assert gone() is not None, "our tensor keeps the array alive"

# And given on: PyTorch and NumPy look into the same memory, which outlives our handle.
seen = torch.from_dlpack(Given(tensor))
again = numpy.from_dlpack(Given(tensor))
assert seen.tolist() == [[8, 12], [16, 20]] and seen.stride() == (4, 2) and again.strides == (16, 8)
ours.trireme_drop(tensor)
seen[0, 0] = 1
assert again[0, 0] == 1
del again
gc.collect()
assert gone() is not None
del seen
gc.collect()
assert gone() is None, "nobody needs the array any more"

# PyTorch's types.
for kind in (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool):
    t = torch.ones(2, 3).to(kind)
    tensor = take(t)
    back = torch.from_dlpack(Given(tensor))
    assert back.dtype == kind and back.data_ptr() == t.data_ptr() and torch.equal(back, t), kind
    ours.trireme_drop(tensor)

# Read-only memory is not written to.
array = numpy.ones(3)
array.flags.writeable = False
tensor = take(array)
ours.trireme_double(tensor)  # prints why not
assert array.tolist() == [1, 1, 1]
back = numpy.from_dlpack(Given(tensor))
assert not back.flags.writeable
ours.trireme_drop(tensor)

# What we cannot hold stays theirs.
assert take(numpy.arange(4)[::-1]) is None and take(numpy.ones(2, dtype=numpy.complex64)) is None
print("all is well", flush=True)
