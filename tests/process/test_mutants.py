#!/usr/bin/env python3
"""Breaks the code that makes bits independent of world size, one way at a time, and demands that a test notices.

    test_mutants.py SOURCE BUILD [part of a mutant's name]

A mutant is one edit of one file, or one more compiler flag for it. The file is compiled with the build's own command and linked into a test in
front of the library, whose own copy of it the linker then leaves out; nothing in the build changes. The unedited file
goes through the same mill first, and must pass.
"""
import json
import pathlib
import shlex
import subprocess
import sys
import tempfile

TREE = "kernels/cpu/shard_sum.cpp"
RANKS = "distributed/comm/ordered_reduce.cpp"
HOSTS = "distributed/comm/host_sum.cpp"
NODES = "kernels/tree.cpp"
SHARDS = "distributed/ddp/shard_sum.cpp"
REDUCER = "distributed/ddp/reducer.cpp"
SHARES = "distributed/ddp/reducer_shares.cpp"
ZERO_TESTS = ["ranks_ddp_zero"]
TREE_TESTS = ["unit_distributed_ordered_reduce", "ranks_comm_ordered"]
REDUCER_TESTS = ["ranks_ddp_reducer"]
REPLICA = "distributed/ddp/replica.cpp"
JOB = "distributed/train/job.cpp"
MODEL_TESTS = ["ranks_ddp_models"]

PACKED = "kernels/packed_words.cpp"
PACKED_TESTS = ["unit_kernels_packed_words"]
ROUNDING_TESTS = ["unit_kernels_rounding"]

# (what goes wrong, file, text, its replacement, tests of which one must fail); without a text, the last but one is a
# compiler flag.
MUTANTS = [
    ("pairs at distance 2 first", TREE,
     "sum.add(static_cast<const T*>(parts[k]) + begin, merges[k], size);",
     "sum.add(static_cast<const T*>(parts[nodes.size() == 4 ? k % 2 * 2 + k / 2 : k]) + begin, merges[k], size);", TREE_TESTS),
    ("hosts' partials in reverse order", HOSTS,
     "    std::byte* const mine = in(", "    std::ranges::reverse(parts);\n    std::byte* const mine = in(", TREE_TESTS[1:]),
    ("GPUs of a host add up in reverse order", "distributed/comm/device_routes.cpp",
     "add(share.merged[n], share, below, parts,",
     "add(share.merged[n], share, below, std::vector<const void*>(parts.rbegin(), parts.rend()),", ["unit_cuda_routes"]),
    ("a host's GPUs get no slices of other hosts", "distributed/comm/device_routes.cpp",
     "for (const int owner : places_.owners) sends.push_back({near[k], of(owner)});",
     "for (const int owner : places_.owners) sends.push_back({near[k], of(rank_).first(of(owner).size())});", ["unit_cuda_routes"]),
    ("code is captured before it was started once", "kernels/cuda/recorder.cpp",
     "std::ranges::all_of(recorded.work, has_started)", "true", ["unit_cuda_graphs"]),
    ("a capture is open while a step is enqueued", "kernels/cuda/recorder.cpp",
     "  is_open_ = true;\n", "  is_open_ = true;\n  if (!recording_) begin_capture(recording_ = make_stream());\n", ["unit_cuda_graphs"]),
    ("work that cannot be captured ends the program", "kernels/cuda/recorder.cpp",
     "    return error.what();\n", "    throw;\n", ["unit_cuda_graphs"]),
    ("a backward pass of attention takes the whole batch", "kernels/cuda/fused_slices.cpp",
     "std::max<std::int64_t>(1, kBytes / sample)", "s.batch", ["unit_cuda_attention"]),
    ("parts of attention read the first part's sums", "kernels/cuda/attention.cu",
     "(sample * whole.heads + head) * whole.queries", "std::int64_t{0}", ["unit_cuda_attention"]),
    ("nobody hears that attention is not fused", "kernels/cuda/attention.cu", "  add_notice(", "  static_cast<void>(",
     ["unit_cuda_attention_notices"]),
    ("after a failure the next engine is taken", "kernels/cuda/engines.cpp",
     "  if (second.outcome == PlanAttempt::kFailed)\n", "  if (false)\n", ["unit_cuda_engines"]),
    ("memory is not released before the second attempt", "kernels/cuda/engines.cpp", "  release_memory();\n", "",
     ["unit_cuda_engines"]),
    ("a failure of cuBLASLt means that it has no kernel", "kernels/cuda/matmul.cpp",
     "PlanAttempt::kNotSupported : PlanAttempt::kFailed", "PlanAttempt::kNotSupported : PlanAttempt::kNotSupported",
     ["unit_cuda_engines"]),
    ("ranks may compute by different engines", "distributed/train/engine_log.cpp", "if (known != engine && difference_.empty())", "if (false)",
     ["ranks_train_engines"]),
    ("a GPU applies what is not finite", "core/optim/optimizer.cpp", "slice.halted = halted;", "", ["unit_cuda_later"]),
    ("numbers of the step behind are read", SHARDS, "ticket_ = 1 - ticket_;", "", ["unit_cuda_later"]),
    ("zeros among packed words get an exponent", PACKED, "if (!e.zero) ++e.least;", "++e.least;", PACKED_TESTS),
    ("packed words lose their signs", PACKED, " | (words[i] >> 24 & 128)", "", PACKED_TESTS),
    ("messages are packed though nobody waits", "distributed/train/link_packing.cpp", "kShareToWait * waited_ <= time_", "time_.count() < 0",
     ["unit_distributed_link_packing"]),
    ("what are no siblings is merged", NODES,
     "if (left.size() < 2 || left[left.size() - 2] != TreeNode{level, index - 1}) return merges;",
     "if (left.size() < 2) return merges;", TREE_TESTS[1:]),
    ("a host's sums go to its first rank alone", HOSTS,
     "in(piece, piece.all.outs[member], member, slice_of(piece, owner).first)",
     "in(piece, piece.all.outs[0], 0, slice_of(piece, owner).first)", TREE_TESTS[1:]),
    ("left fold over the nodes", TREE,
     "      const float* root = sum.take_root();\n",
     "      const float* root = sum.take_root();\n"
     "      std::array<float, kBlock> fold;\n"
     "      std::copy_n(static_cast<const T*>(parts[0]) + begin, size, fold.data());\n"
     "      for (std::size_t k = 1; k < nodes.size(); ++k)\n"
     "        for (std::size_t i = 0; i < size; ++i) fold[i] += static_cast<const T*>(parts[k])[begin + i];\n"
     "      root = fold.data();\n", TREE_TESTS),
    ("sums in 16 bits are rounded at the end alone", TREE, "to[i] = T(to[i]);", ";", TREE_TESTS[:1]),
    ("one rank's slice is left out", RANKS,
     "return {first, std::min(share, count - first)};",
     "return {first, world_size > 1 && rank == world_size - 1 ? 0 : std::min(share, count - first)};", TREE_TESTS),
    ("padding with +0.0", TREE,
     "to[i] = T(root[i] * scale);", "to[i] = T(root[i] * scale + 0.0f);", TREE_TESTS),
    ("scaling before the sum", TREE,
     "out[i] = left[i] + right[i];", "out[i] = (left[i] * (1.0f / 3) + right[i] * (1.0f / 3)) * 3;", TREE_TESTS),
    ("left fold inside a rank", SHARDS,
     "  for (int merges = append_node(nodes_, {0, range_.first + pushed_ - 1}, shards_); merges > 0; --merges) {\n",
     "  if (stack_.size() > 1) {\n"
     "    add_to(stack_[0], stack_[1]);\n"
     "    stack_.pop_back();\n"
     "  }\n"
     "  if (pushed_ == range_.size())\n"
     "    for (std::size_t k = 1; k < maximal_subtrees(shards_, range_).size(); ++k)\n"
     "      stack_.push_back(Tensor::full({static_cast<std::int64_t>(count_)}, -0.0));\n"
     "  for (int merges = 0; merges > 0; --merges) {\n", REDUCER_TESTS),
    ("every rank scales its own part", SHARDS,
     "    std::vector<const void*> partials;\n",
     "    for (const Tensor& partial : stack_)\n"
     "      for (std::size_t i = 0; i < count_; ++i) partial.data<float>()[i] *= scale;\n"
     "    const float scale = 1;\n"
     "    std::vector<const void*> partials;\n", REDUCER_TESTS),
    ("mean of the ranks' means", SHARDS,
     "    std::vector<const void*> partials;\n",
     "    const float scale = 1.0f / float(range_.size() * comm_.size());\n"
     "    std::vector<const void*> partials;\n", REDUCER_TESTS),
    ("what a shard left behind is summed again", REDUCER,
     "kernels_for(unused.device()).fill(unused.view(), 0);", "", REDUCER_TESTS),
    ("unused here is taken for unused everywhere", REDUCER,
     "used_[index] = bucket.sum->notes(ticket)[slot] > 0;", ";", REDUCER_TESTS),
    ("unused is taken for a gradient of zeros", REDUCER,
     "used_[index] = bucket.sum->notes(ticket)[slot] > 0;", "used_[index] = true;", REDUCER_TESTS),
    ("models launch as their gradients come", REPLICA,
     "if (!replica->launch_ready()) return;", "replica->launch_ready();", MODEL_TESTS),
    ("statistics go to the last model only", REPLICA,
     "return std::ranges::any_of(replicas_, [&](const auto& r) { return r->observe(running, value, momentum); });",
     "return replicas_.back()->observe(running, value, momentum);", MODEL_TESTS),
    ("frozen parameters are reduced", REPLICA,
     "return !p.tensor.requires_grad();", "return !p.tensor.defined();", MODEL_TESTS),
    ("a second pass is the first one's continuation", JOB,
     "  add_totals(totals_, end_round(false));\n", "", MODEL_TESTS),
    ("every pass drops out alike", JOB,
     "part.first, round_}", "part.first, 0}", MODEL_TESTS),
    ("shares are cut where ranks are even", "distributed/ddp/bucket_plan.cpp",
     "cuts.push_back(cut - begin < elements[plan.tensors[slot]] ? cut : end);", "cuts.push_back(even);", ZERO_TESTS),
    ("a rank keeps its new values to itself", SHARES,
     "run(kernels, (*updates)[k].in);", "", ZERO_TESTS),
    ("squares of other ranks' shares are left out", SHARES,
     "  comm_.host().all_gather(slices, \"squares of shares\").wait();\n", "", ZERO_TESTS),
    ("a parameter that another rank used has no gradient", SHARES,
     "used_[i] = used_[i] || said[sizeof bad + i] != std::byte{0};", ";", ["ranks_feature_matrix"]),
    ("parameters are read before they are there", SHARES,
     "p.impl()->storage->filling = Ref<Filling>(under_way);", ";", ZERO_TESTS),
    ("a hook's vectors are summed from the left", "distributed/ddp/comm_hook.cpp",
     "for (int merges = append_node(nodes, {0, shard}, shards_); merges > 0; --merges) {",
     "append_node(nodes, {0, shard}, shards_);\n"
     "    for (int merges = left.size() > 1 && left.size() > maximal_subtrees(shards_, own).size(); merges > 0; --merges) {",
     ["ranks_ddp_hooks"]),
    ("what PowerSGD lacks is forgotten", "distributed/ddp/power_sgd.cpp",
     "x.kernels.binary(BinaryOp::sub, left, left, product);", "x.kernels.fill(left, 0);", ["ranks_ddp_hooks"]),
    ("synchronized statistics are those of the shard", "distributed/ddp/shard_sync.cpp",
     "return to_device(out, part.device());", "return to_device(in, part.device());", ["ranks_ddp_sync_batchnorm"]),
    ("contraction on in a reduction", "kernels/cpu/reduce.cpp", None, "-ffp-contract=fast", ROUNDING_TESTS),
    ("contraction on in an optimizer", "kernels/cpu/optim.cpp", None, "-ffp-contract=fast", ROUNDING_TESTS),
]


class Build:
    """Compiles and links with the commands of an existing Ninja build."""

    def __init__(self, source, build, scratch):
        self.source, self.build, self.scratch = source, build, scratch
        self.commands = json.loads((build / "compile_commands.json").read_text())

    def run(self, command, **options):
        return subprocess.run(command, cwd=self.build, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)

    def link_words(self, test):
        """The words of the command that links a test."""
        listed = self.run(["ninja", "-t", "commands", "-s", f"tests/{test}"])
        steps = [step for step in listed.stdout.split(" && ") if f" -o tests/{test} " in step]
        if not steps:
            sys.exit(f"the build has no test {test}")
        return shlex.split(steps[0])

    def compile_words(self, test, file):
        """The words of the command that compiles a file for a test. The emulated GPU has some files compiled anew, whose objects are
        linked by name."""
        entries = [shlex.split(entry["command"]) for entry in self.commands if entry["file"] == str(self.source / file)]
        linked = set(self.link_words(test))
        return next((words for words in entries if words[words.index("-o") + 1] in linked), entries[0])

    def compile(self, test, file, text, flags=()):
        edited, result = self.scratch / pathlib.Path(file).name, self.scratch / "edited.o"
        edited.write_text(text)
        words = self.compile_words(test, file)
        words[words.index("-o") + 1] = str(result)
        words[words.index("-c") + 1] = str(edited)
        done = self.run([*words, *flags])
        if done.returncode != 0:
            sys.exit(f"the edited {file} does not compile:\n{done.stdout}")
        return result

    def link(self, test, file, edited):
        words = self.link_words(test)
        result = self.scratch / test
        words[words.index("-o") + 1] = str(result)
        compiled = self.compile_words(test, file)
        original = compiled[compiled.index("-o") + 1]
        if original in words:
            words[words.index(original)] = str(edited)
        else:
            words.insert(next(i for i, word in enumerate(words) if word.endswith(".a")), str(edited))
        done = self.run(words)
        if done.returncode != 0:
            sys.exit(f"{test} does not link with the edited file:\n{done.stdout}")
        return result

    def passes(self, test, file, text, flags=()):
        """Returns True if the test passes with this text of the file."""
        program = self.link(test, file, self.compile(test, file, text, flags))
        try:
            return self.run([program, "--gtest_brief=1"], timeout=120).returncode == 0
        except subprocess.TimeoutExpired:
            return False


def main():
    source, build, chosen = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), "".join(sys.argv[3:])
    if not (build / "build.ninja").exists():
        print("skipped: needs a build made by Ninja")
        return 77
    survivors = 0
    with tempfile.TemporaryDirectory(dir=build) as scratch:
        tools = Build(source, build, pathlib.Path(scratch))
        sound = set()
        for name, file, old, new, tests in MUTANTS:
            if chosen not in name:
                continue
            text = (source / file).read_text()
            if old is not None and text.count(old) != 1:
                sys.exit(f"{name}: {file} no longer has this text exactly once: {old}")
            for test in {test for test in tests if (file, test) not in sound}:
                if not tools.passes(test, file, text):
                    sys.exit(f"{test} fails without any mutant")
                sound.add((file, test))
            edited, flags = (text, [new]) if old is None else (text.replace(old, new), [])
            killer = next((test for test in tests if not tools.passes(test, file, edited, flags)), None)
            survivors += killer is None
            print(f"{name}: " + (f"noticed by {killer}" if killer else "NOBODY NOTICED"), flush=True)
    print(f"{survivors} mutants survived")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
