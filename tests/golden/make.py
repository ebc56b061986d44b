#!/usr/bin/env python3
"""Writes the reference files beside it with PyTorch: run by hand, results are kept in the repository.

    python tests/golden/make.py [family ...]

One file per family. A case is one call: case(op, arguments...) with T(...) for tensors; `op` is a declaration of
core/ops/*.h, or just its name where that is not overloaded. PyTorch's function of that name is called with the same
arguments unless `ref` is given. tests/unit/core/golden.cpp reads the files and says what is in them.
Whole trainings are made by curves.py, run without arguments, and stand in curves.json.
Made with torch 2.15.0+cu132 (CPU) and numpy 2.4.6.
"""
import sys

import torch

from case import cases, tensors, write
from kinks import kinks
from layers import attention, modules, optimizers, sequences
from ops import conv, elementwise, index, linear, loss, norm, recurrent, reduce, shape

FAMILIES = [elementwise, reduce, shape, index, linear, conv, norm, loss, recurrent, modules, sequences, attention,
    optimizers, kinks]

if __name__ == "__main__":
    torch.set_num_threads(1)
    for family in FAMILIES:
        if len(sys.argv) == 1 or family.__name__ in sys.argv[1:]:
            cases.clear(), tensors.clear()
            family()
            write(family.__name__)
