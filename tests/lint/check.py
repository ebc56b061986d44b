#!/usr/bin/env python3
"""Checks the rules of the house that a compiler does not: check.py ROOT.

Prints one line per broken rule, as `file:line: what`, and exits with 1 if there was any.
"""
import pathlib
import re
import sys

CPP = {".cpp", ".h", ".cu", ".cuh"}
HEADER = {".h", ".cuh"}
MAX_FILE, MAX_FUNCTION = 500, 60

# Each folder, and the folders whose files it may include besides its own.
TENSOR = ["kernels", "core/base", "core/tensor"]
OPS = TENSOR + ["core/autograd", "core/amp", "core/ops"]
CORE = OPS + ["core/nn", "core/optim", "core/interchange", "core/data", "core/metrics", "core/profiler"]
COMM = CORE + ["distributed/rendezvous", "distributed/comm"]
DISTRIBUTED = COMM + ["distributed/ddp", "distributed/checkpoint", "distributed/watch", "distributed/train",
                      "distributed/trireme"]
HOUSE = {
    "kernels": [],
    "core/base": ["kernels"],
    "core/tensor": TENSOR,
    "core/autograd": TENSOR,
    "core/amp": TENSOR + ["core/autograd"],
    "core/ops": OPS,
    "core/nn": OPS,
    "core/optim": OPS + ["core/nn"],
    "core/interchange": OPS + ["core/nn"],
    "core/data": TENSOR,
    "core/metrics": TENSOR,
    "core/profiler": TENSOR + ["core/autograd", "core/metrics"],
    "distributed/rendezvous": CORE,
    "distributed/comm": COMM,
    "distributed/ddp": COMM,
    "distributed/checkpoint": COMM,
    "distributed/watch": COMM,
    "distributed/train": COMM + ["distributed/ddp", "distributed/checkpoint", "distributed/watch"],
    "distributed/trireme": DISTRIBUTED,
    "launcher": DISTRIBUTED,
    "examples": DISTRIBUTED,
    "tests": DISTRIBUTED + ["launcher", "examples"],
}

# Third-party headers, and where they may stand. A header that includes one is private to its folder, so
# that nobody else is made to see it.
THIRD_PARTY = [
    (r"fmt/", [""]),
    (r"(oneapi/|dnnl|cblas\.h|openblas|hwy/)", ["kernels/cpu"]),
    (r"omp\.h", ["kernels"]),
    (r"cublasLt\.h", ["kernels/cuda", "tests/support/cuda_emulator"]),
    (r"(cuda|cublas(?!Lt)|cudnn|cub/|cooperative_groups|thrust/)", ["kernels/cuda", "distributed/comm"]),
    (r"nccl", ["distributed/comm", "tests/support/cuda_emulator"]),
    (r"(zlib\.h|openssl/|jpeglib\.h|turbojpeg\.h|archive)", ["core", "examples", "tests"]),
    (r"mpi\.h", ["distributed/comm", "tests"]),
    (r"google/protobuf/", ["distributed/checkpoint", "distributed/train", "launcher", "tests"]),
    (r"CLI/", ["distributed/train", "launcher"]),
    (r"nlohmann/", ["core", "distributed", "launcher", "tests"]),
    (r"(gtest|gmock|benchmark)/", ["tests"]),
]
# The two that everybody sees: error messages are formatted, and a job is a message.
PUBLIC_ANYWAY = {("kernels/error.h", "fmt/format.h"), ("distributed/train/options.h", "distributed/train/job.pb.h")}
GENERATED = {"distributed/train/job.pb.h": ["distributed", "launcher", "examples", "tests"],
             "distributed/checkpoint/manifest.pb.h": ["distributed/checkpoint", "launcher", "tests"]}
SYSTEM = re.compile(
    r"[a-z_0-9]+$|(sys|linux|netinet|net|arpa|asm|bits|trireme)/|.*intrin\.h$|sanitizer/|"
    r"(dirent|dlfcn|elf|errno|execinfo|fcntl|fenv|float|getopt|glob|grp|ifaddrs|limits|link|malloc|math|netdb|"
    r"poll|pthread|pty|pwd|sched|semaphore|setjmp|signal|spawn|stdint|stdio|stdlib|string|strings|syslog|termios|time|ucontext|unistd|"
    r"utime|wait|cxxabi|cpuid)\.h$")

FORBIDDEN = re.compile(r"-ffast-math|-Ofast|-funsafe-math-optimizations|-fassociative-math|-freciprocal-math|"
                       r"-ffp-contract=(fast|on)|--use_fast_math|pragma\s+(GCC\s+optimize|STDC\s+FP_CONTRACT\s+ON)|"
                       r"__attribute__\(\(optimize")


def under(path, folders):
    return any(folder == "" or path == folder or path.startswith(folder + "/") for folder in folders)


def room_of(path):
    """The folder of HOUSE that a file stands in."""
    return next((room for room in HOUSE if under(path, [room])), None)


def without_comments(line, mark):
    return line.split(mark, 1)[0]


def function_lengths(lines):
    """Yields (line, length) of function bodies. Relies on clang-format: the closing brace is indented like
    the line that the function starts on. Functions in functions (lambdas) count with theirs."""
    line = 0
    while line < len(lines):
        if lines[line].rstrip().endswith("{"):
            start = line  # a long signature starts after the last line that ended something
            while start > 0 and lines[start - 1].strip() and not re.search(r"[;{}:]\s*$|^\s*(//|#)", lines[start - 1]):
                start -= 1
            indent = len(lines[start]) - len(lines[start].lstrip())
            signature = " ".join(lines[start:line + 1])
            other = r"=\s*\{$|^\s*(namespace|class|struct|enum|union|extern)\b"
            if indent <= 4 and "(" in signature and not re.search(other, signature.rstrip()):
                close = " " * indent + "}"
                end = next((i for i in range(line + 1, len(lines)) if lines[i].startswith(close)), line)
                yield start + 1, end - start + 1
                line = end
        line += 1


def check_include(path, number, quoted, name, private):
    """Yields what is wrong with one #include of file `path`."""
    where = f"{path}:{number}"
    if quoted and name not in GENERATED:
        room, target = room_of(path), room_of(name)
        if "/" not in name:
            yield f"{where}: \"{name}\": write the path from the repository's root"
        elif target is None:
            yield f"{where}: \"{name}\": no folder of the house; third-party headers go in <>"
        elif target != room and target not in HOUSE.get(room, []):
            yield f"{where}: {room} must not include {target} (\"{name}\"): dependencies point leftward only"
        elif name in private and str(pathlib.PurePath(name).parent) != str(pathlib.PurePath(path).parent):
            yield f"{where}: \"{name}\" shows third-party headers, so only its own folder may include it"
        return
    places = GENERATED.get(name)
    for pattern, allowed in THIRD_PARTY:
        if places is None and re.match(pattern, name):
            places = allowed
    if places is None:
        if not SYSTEM.match(name):
            yield f"{where}: <{name}> is not known: enter it in THIRD_PARTY or SYSTEM of tests/lint/check.py"
    elif not under(path, places):
        yield f"{where}: <{name}> may stand only in {', '.join(places)}"


def includes_of(text):
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r'\s*#\s*include\s*(["<])([^">]+)[">]', line)
        if match:
            yield number, match[1] == '"', match[2]


def is_third_party(name):
    return name in GENERATED or any(re.match(pattern, name) for pattern, _ in THIRD_PARTY)


FRAGMENT = re.compile(r"(of|as|where|whether|what|the same|with it)\b", re.I)
MAX_SENTENCE = 40


def doc_paragraphs(text):
    """Yields (line, paragraph) of `///` comments; `///<` is a paragraph of its own."""
    begin, words = 0, []
    for number, line in enumerate(text.splitlines() + [""], 1):
        found = re.match(r"(.*?)///(<?)(.*)", line)
        is_member = bool(found and found[2])
        if words and (not found or is_member or not found[3].strip()):
            yield begin, " ".join(words)
            words = []
        if is_member:
            begin = number
        elif found and not words:
            begin = number
        if found:
            words += found[3].split()


def check_comments(path, text):
    """Yields `///` comments that begin with a fragment, and, in headers, sentences that are too long."""
    for number, paragraph in doc_paragraphs(text):
        found = FRAGMENT.match(paragraph)
        if found:
            yield f"{path}:{number}: a comment begins with \"{found[0]}\": write a sentence with a subject and a verb"
        if pathlib.PurePath(path).suffix not in HEADER:
            continue
        for sentence in re.split(r"(?<=[.?!])\s", paragraph):
            if len(sentence.split()) > MAX_SENTENCE:
                yield (f"{path}:{number}: a sentence of {len(sentence.split())} words (at most {MAX_SENTENCE}): "
                       f"{' '.join(sentence.split()[:6])} ...")


def check_cpp(path, text, private):
    if room_of(path) is None:
        yield f"{path}:1: code stands outside the house's folders"
    if pathlib.PurePath(path).suffix in HEADER and "#pragma once" not in text:
        yield f"{path}:1: a header starts with #pragma once"
    for number, quoted, name in includes_of(text):
        yield from check_include(path, number, quoted, name, private)
    yield from check_comments(path, text)
    for number, length in function_lengths(text.splitlines()):
        if length > MAX_FUNCTION:
            yield f"{path}:{number}: a function of {length} lines (at most {MAX_FUNCTION})"


def check_tree(root):
    files = {}
    for file in sorted(root.rglob("*")):
        path = file.relative_to(root).as_posix()
        if re.match(r"(build|out|\.git)[^/]*/", path) or not file.is_file():
            continue
        is_build = file.name in ("CMakeLists.txt", "CMakePresets.json") or file.suffix == ".cmake"
        if file.suffix in CPP | {".py", ".sh", ".proto"} or is_build:
            files[path] = file.read_text(encoding="utf-8", errors="replace")

    private = {path for path, text in files.items() if pathlib.PurePath(path).suffix in HEADER
               and any(is_third_party(name) and (path, name) not in PUBLIC_ANYWAY for _, _, name in includes_of(text))}
    for path, text in files.items():
        suffix = pathlib.PurePath(path).suffix
        lines = text.splitlines()
        if len(lines) > MAX_FILE:
            yield f"{path}:{MAX_FILE}: {len(lines)} lines (at most {MAX_FILE})"
        if suffix in CPP:
            yield from check_cpp(path, text, private)
        if suffix not in (".py", ".sh"):
            for number, line in enumerate(lines, 1):
                found = FORBIDDEN.search(without_comments(line, "//" if suffix in CPP else "# "))
                if found:
                    yield f"{path}:{number}: {found[0]} would make bits depend on the compiler's choice"


if __name__ == "__main__":
    broken = list(check_tree(pathlib.Path(sys.argv[1])))
    print("\n".join(broken + [f"{len(broken)} broken rules"]))
    sys.exit(1 if broken else 0)
