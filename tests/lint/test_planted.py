#!/usr/bin/env python3
"""check.py finds every kind of broken rule, and only those: each is planted in a small tree of its own."""
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent))
sys.dont_write_bytecode = True
import check  # noqa: E402

HEADER = "#pragma once\n"
LONG_BODY = "  f();\n" * 60


def function(head, body, indent=""):
    return f"{indent}{head} {{\n{body}{indent}}}\n"


# What is planted (file -> text), and a part of each line that must be reported, in the order of files.
CASES = {
    "a clean tree": ({
        "kernels/error.h": HEADER + "#include <fmt/format.h>\n#include <string>\n",
        "kernels/cpu/cache.h": HEADER + "#include <dnnl.hpp>\n",
        "kernels/cpu/conv.cpp": '#include "kernels/cpu/cache.h"\n#include <omp.h>\n',
        "core/base/crc.h": HEADER + '#include "kernels/error.h"\n',
        "core/ops/add.cpp": '#include "core/autograd/node.h"\n#include "core/base/crc.h"\n',
        "distributed/train/options.h": HEADER + '#include "distributed/train/job.pb.h"\n',
        "distributed/train/loop.cpp": '#include "distributed/ddp/reducer.h"\n#include "distributed/train/options.h"\n',
        "examples/a/main.cpp": "#include <trireme/trireme.h>\n#include <sys/stat.h>\n",
        "tests/unit/x.cpp": '#include <gtest/gtest.h>\n#include "launcher/commands.h"\n',
        "CMakeLists.txt": "# no -ffast-math\nadd_compile_options(-ffp-contract=off)\n",
        "build/x.cpp": '#include "nowhere.h"\n',
    }, []),
    "kernels see core": ({"kernels/a.cpp": '#include "core/tensor/tensor.h"\n'}, ["a.cpp:1: kernels must not include core/tensor"]),
    "base sees tensor": ({"core/base/a.h": HEADER + '\n#include "core/tensor/tensor.h"\n'}, ["a.h:3: core/base must not"]),
    "data sees ops": ({"core/data/a.cpp": '#include "core/ops/ops.h"\n'}, ["core/data must not"]),
    "tensor sees autograd": ({"core/tensor/a.cpp": '#include "core/autograd/node.h"\n'}, ["core/tensor must not"]),
    "nn sees optim": ({"core/nn/a.cpp": '#include "core/optim/sgd.h"\n'}, ["core/nn must not"]),
    "ddp and checkpoint apart": ({
        "distributed/checkpoint/a.cpp": '#include "distributed/ddp/reducer.h"\n',
        "distributed/ddp/a.cpp": '#include "distributed/checkpoint/store.h"\n'},
        ["distributed/checkpoint must not", "distributed/ddp must not"]),
    "comm sees train": ({"distributed/comm/a.cpp": '#include "distributed/train/options.h"\n'}, ["distributed/comm must not"]),
    "a library sees tests": ({"launcher/a.cpp": '#include "tests/support/watchdog.h"\n'}, ["launcher must not"]),
    "relative include": ({"core/nn/a.cpp": '#include "module.h"\n'}, ["from the repository's root"]),
    "code outside the house": ({"utils/a.cpp": "", "core/misc/a.cpp": ""}, ["core/misc/a.cpp:1: code stands outside", "utils/a.cpp:1"]),
    "third-party elsewhere": ({"core/nn/a.cpp": "#include <CLI/CLI.hpp>\n#include <mpi.h>\n"}, ["<CLI/CLI.hpp> may stand only", "<mpi.h> may stand only"]),
    "third-party unknown": ({"core/nn/a.cpp": "#include <boost/any.hpp>\n"}, ["<boost/any.hpp> is not known"]),
    "third-party shown": ({
        "kernels/cpu/cache.h": HEADER + "#include <dnnl.hpp>\n",
        "core/ops/a.cpp": '#include "kernels/cpu/cache.h"\n'}, ["core/ops/a.cpp:1: \"kernels/cpu/cache.h\" shows"]),
    "messages elsewhere": ({"core/nn/a.cpp": '#include "distributed/checkpoint/manifest.pb.h"\n'}, ["may stand only"]),
    "no guard": ({"core/nn/a.h": "int f();\n"}, ["#pragma once"]),
    "long file": ({"core/nn/a.cpp": "int x;\n" * 501}, ["501 lines (at most 500)"]),
    "long functions": ({
        "core/nn/a.cpp": function("int f(int a)", LONG_BODY[14:]) + function("int g(int a,\n      int b) const", LONG_BODY) +
                         "class C {\n public:\n" + function("void h()", LONG_BODY, "  ") + "};\n"},
        ["a.cpp:61: a function of 63 lines", "a.cpp:126: a function of 62 lines"]),
    "comments that are fragments": ({
        "core/nn/a.h": HEADER + "/// As f().\nint g();\nint x;  ///< of a layer\n/// Returns a number.\n/// What it is.\n"
                                "///\n/// Whether it works.\nint h();\n/// Assigns, when asked to.\nint i();\n"},
        ['a.h:2: a comment begins with "As"', 'a.h:4: a comment begins with "of"', 'a.h:8: a comment begins with "Whether"']),
    "long sentences": ({
        "core/nn/a.h": HEADER + "/// Returns a number." + " One word more" * 13 + " and that\n/// is it. It ends.\nint f();\n"
                                "/// Returns" + " it" * 39 + ". Returns" + " it" * 39 + ".\nint g();\n",
        "core/nn/a.cpp": "/// Returns" + " it" * 60 + ".\n"},
        ["a.h:2: a sentence of 43 words"]),
    "fast math": ({
        "cmake/a.cmake": "x(-ffast-math)\ny(-ffp-contract=fast)\n",
        "core/nn/a.cpp": "#pragma GCC optimize(\"O3\")\n// -Ofast\n"},
        ["a.cmake:1: -ffast-math", "a.cmake:2: -ffp-contract=fast", "a.cpp:1: pragma GCC optimize"]),
}


def main():
    failures = 0
    for name, (files, expected) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for path, text in files.items():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_text(text)
            found = list(check.check_tree(root))
        if len(found) != len(expected) or any(part not in line for part, line in zip(expected, found)):
            failures += 1
            print(f"{name}: expected {expected}, found {found}")
    print(f"{len(CASES)} planted trees, {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
