"""A stand-in for AWS's torch-neuron, which tests cannot install. It is not the SDK and compiles nothing.

It keeps what hfexport meets of the real one: `trace`'s signature and errors, the lines it logs, artifacts whose graph
holds `neuron::forward…` operators between those left on CPU, and a run time that refuses to load them where there is no
device. `neuron_stand_in` says what a compiled segment is here, and how the stand-in is made to misbehave.

Sources: the archived API reference of torch-neuron, and logs in the issues of aws-neuron/aws-neuron-sdk.
"""

import enum
import logging
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import neuron_stand_in as stand_in
import torch

__version__ = "1.13.1.2.11.13.0"

logger = logging.getLogger("Neuron")

NOT_SUPPORTED = {"aten::embedding"}


class Optimization(enum.Enum):
    FLOAT32_TO_FLOAT16 = "float32_to_float16"


def trace(
    model,
    example_inputs,
    *,
    compiler_args=None,
    compiler_timeout=None,
    compiler_workdir=None,
    subgraph_builder_function=None,
    minimum_segment_size=2,
    single_fusion_ratio_threshold=0.6,
    fallback=True,
    dynamic_batch_size=False,
    optimizations=None,
    separate_weights=False,
    **jit_trace_kwargs,
):
    """Signature as documented; `single_fusion_ratio_threshold` has no effect here."""
    flags = stand_in.flags_of(compiler_args or [])
    stand_in.misbehave(flags)
    stand_in.check_size(model, flags, separate_weights)
    for optimization in optimizations or []:
        assert isinstance(optimization, Optimization)
    cast = "float16" if Optimization.FLOAT32_TO_FLOAT16 in (optimizations or []) else "bfloat16"
    pack = partial(stand_in.pack, flags, dynamic=dynamic_batch_size, cast=cast)
    module = torch.jit.trace(model, example_inputs, check_trace=False, **jit_trace_kwargs)
    graph = torch.jit.freeze(module.eval()).inlined_graph
    unsupported = NOT_SUPPORTED | set(filter(None, flags.get("unsupported", "").split(",")))
    chosen = subgraph_builder_function or (lambda node: node.kind() not in unsupported)
    segments = _segments(graph, chosen, minimum_segment_size)
    left = Counter(
        node.kind() for compiled, nodes in segments if not compiled for node in nodes if _is_arithmetic(node)
    )
    if not fallback and unsupported & set(left):
        raise AttributeError(f"Operator {min(unsupported & set(left))} is not supported")
    return _Compilation(
        graph, segments, left, unsupported, compiler_args, compiler_timeout, compiler_workdir, flags, pack
    ).run(example_inputs)


def _is_arithmetic(node):
    return node.kind().startswith("aten::")


def _segments(graph, chosen, minimum_size):
    """Runs of nodes in order, each (goes to the compiler, nodes); constants belong to whoever uses them."""
    runs = []
    for node in graph.nodes():
        if node.kind() == "prim::Constant":
            continue
        goes = chosen(node) if _is_arithmetic(node) else (runs[-1][0] if runs else False)
        if not runs or runs[-1][0] != goes:
            runs.append((goes, []))
        runs[-1][1].append(node)
    big = [(goes and sum(map(_is_arithmetic, nodes)) >= minimum_size, nodes) for goes, nodes in runs]
    merged = []
    for goes, nodes in big:
        if merged and merged[-1][0] == goes:
            merged[-1][1].extend(nodes)
        else:
            merged.append((goes, list(nodes)))
    return merged


class _Compilation:
    def __init__(self, graph, segments, left, unsupported, compiler_args, timeout_s, workdir, flags, pack):
        self.graph, self.segments, self.left, self.unsupported = graph, segments, left, unsupported
        self.compiler_args, self.timeout_s, self.workdir = compiler_args or [], timeout_s, workdir
        self.flags, self.pack = flags, pack

    def run(self, example_inputs):
        everything = [node for _, nodes in self.segments for node in nodes if _is_arithmetic(node)]
        fused = sum(_is_arithmetic(node) for compiled, nodes in self.segments if compiled for node in nodes)
        total = len(everything)
        logger.info(
            "There are %d ops of %d different types in the TorchScript that are not compiled by neuron-cc: %s, (For more "
            "information see https://github.com/aws/aws-neuron-sdk/blob/master/release-notes/neuron-cc-ops/"
            "neuron-cc-ops-pytorch.md)",
            sum(self.left.values()),
            len(self.left),
            ", ".join(self.left),
        )
        logger.info(
            "Number of arithmetic operators (pre-compilation) before = %d, fused = %d, percent fused = %s%%",
            total,
            fused,
            round(100 * fused / total, 2),
        )
        partitions = sum(compiled for compiled, _ in self.segments)
        if not partitions:
            logger.warning("No operator is placed on Neuron runtime; returning a CPU trace")
        done = [compiled and self._compile(number) for number, (compiled, _) in enumerate(self.segments)]
        if partitions and not any(done):
            raise RuntimeError(
                "No operations were successfully partitioned and compiled to neuron for this model - aborting trace!"
            )
        self._report(total, partitions, done)
        outer = _rebuild(self.graph, [(ok, nodes) for ok, (_, nodes) in zip(done, self.segments)], self.pack)
        traced = torch.jit.trace(outer, example_inputs, check_trace=False)
        torch._C._jit_pass_inline(traced.graph)
        return traced

    def _compile(self, number):
        name = f"_NeuronGraph${number}"
        folder = Path(self.workdir or ".") / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        command = [
            str(Path(sys.executable).parent / "neuron-cc"),
            "compile",
            str(folder / "graph_def.pb"),
            "--framework",
            "TENSORFLOW",
            "--pipeline",
            "compile",
            "SaveTemps",
            "--output",
            str(folder / "graph_def.neff"),
            "--verbose",
            "35",
            *self.compiler_args,
        ]
        logger.info("Compiling function %s with neuron-cc", name)
        logger.info("Compiling with command line: '%s'", " ".join(command))
        code = subprocess.run(command, timeout=self.timeout_s, check=False).returncode
        logger.info("Compile command returned: %d", code)
        if code or str(number) in self.flags.get("fail", "").split(","):
            logger.warning("torch.neuron.trace failed on %s; falling back to native python function call", name)
            logger.error("neuron-cc failed with the following command line call:\n%s", " ".join(command))
            return False
        return True

    def _report(self, total, partitions, done):
        on_neuron = Counter()
        on_cpu = Counter()
        for ok, (_, nodes) in zip(done, self.segments):
            (on_neuron if ok else on_cpu).update(node.kind() for node in nodes if _is_arithmetic(node))
        compiled = sum(on_neuron.values())
        logger.info(
            "Number of arithmetic operators (post-compilation) before = %d, compiled = %d, percent compiled = %s%%",
            total,
            compiled,
            round(100 * compiled / total, 2),
        )
        logger.info("The neuron partitioner created %d sub-graphs", partitions)
        logger.info(
            "Neuron successfully compiled %d sub-graphs, Total fused subgraphs = %d, "
            "Percent of model sub-graphs successfully compiled = %s%%",
            sum(done),
            partitions,
            round(100 * sum(done) / partitions, 1) if partitions else 0.0,
        )
        logger.info("Compiled these operators (and operator counts) to Neuron:")
        for kind, count in sorted(on_neuron.items()):
            logger.info(" => %s: %d", kind, count)
        logger.info("Not compiled operators (and operator counts) to Neuron:")
        for kind, count in sorted(on_cpu.items()):
            logger.info(" => %s: %d [%s]", kind, count, "not supported" if kind in self.unsupported else "supported")


def _is_tensor(value):
    return value.type().kind() == "TensorType"


def _rebuild(graph, segments, pack):
    """A module whose graph runs the compiled segments through `neuron::forward_v2` and the others as they are."""
    outer = torch._C.Graph()
    inputs = list(graph.inputs())
    places = {}
    for value in inputs:
        if value.type().kind() != "ClassType":
            places[value.debugName()] = outer.addInput().setType(value.type())
    used_later = _last_uses(graph, segments)
    for number, (compiled, nodes) in enumerate(segments):
        if compiled:
            _rebuild_segment(outer, places, nodes, {name for name, last in used_later.items() if last > number}, pack)
        else:
            for node in nodes:
                _clone(node, outer, places, None)
    results = [_place(value, outer, places) for value in graph.outputs()]
    for value in results:
        outer.registerOutput(value)
    function = torch._C._create_function_from_graph("forward", outer)

    class Outer(torch.nn.Module):
        def forward(self, *tensors):
            return function(*tensors)

    return Outer()


def _rebuild_segment(outer, places, nodes, used_later, pack):
    """Put `nodes` into a program of their own, and a call of it into `outer`."""
    made = {output.debugName() for node in nodes for output in node.outputs()}
    inner, inner_places, entering = torch._C.Graph(), {}, []
    for node in nodes:
        _clone(node, inner, inner_places, (made, entering))
    outputs = [output for node in nodes for output in node.outputs()]
    leaving = [output for output in outputs if _is_tensor(output) and output.debugName() in used_later]
    for value in leaving:
        inner.registerOutput(inner_places[value.debugName()])
    if len(leaving) > 1:
        _pack_outputs(inner, [inner_places[value.debugName()] for value in leaving])
    function = torch._C._create_function_from_graph("forward", inner)
    program = pack(function, [(value.type().sizes(), value.type().dtype()) for value in entering])
    _insert_call(outer, [_place(value, outer, places) for value in entering], program, leaving, places)
    for output in outputs:  # values that are no tensors, such as sizes, are computed again where they are needed
        if not _is_tensor(output):
            places.pop(output.debugName(), None)


def _last_uses(graph, segments):
    last = {}
    for number, (_, nodes) in enumerate(segments):
        for node in nodes:
            for value in node.inputs():
                _mark(value, number, last)
    for value in graph.outputs():
        _mark(value, len(segments), last)
    return last


def _mark(value, number, last):
    last[value.debugName()] = max(number, last.get(value.debugName(), -1))
    if not _is_tensor(value):
        for source in value.node().inputs():
            _mark(source, number, last)


def _place(value, graph, places, boundary=None):
    """The value's copy in `graph`. Across a boundary tensors become inputs; everything else is computed again."""
    name = value.debugName()
    if name in places:
        return places[name]
    constant = value.node().kind() == "prim::Constant"
    if boundary is not None and name not in boundary[0] and _is_tensor(value) and not constant:
        boundary[1].append(value)
        places[name] = graph.addInput().setType(value.type())
        return places[name]
    _clone(value.node(), graph, places, boundary)
    return places[name]


def _clone(node, graph, places, boundary):
    if all(output.debugName() in places for output in node.outputs()) and list(node.outputs()):
        return
    for value in node.inputs():
        _place(value, graph, places, boundary)
    copy = graph.createClone(node, lambda value: places[value.debugName()])
    graph.appendNode(copy)
    for old, new in zip(node.outputs(), copy.outputs()):
        places[old.debugName()] = new


def _pack_outputs(graph, values):
    for _ in values:
        graph.eraseOutput(0)
    packed = graph.appendNode(graph.create("prim::TupleConstruct", values, 1)).output()
    packed.setType(torch._C.TupleType([value.type() for value in values]))
    graph.registerOutput(packed)


def _insert_call(graph, entering, program, leaving, places):
    tensors = torch._C.ListType(torch._C.TensorType.get())
    given = graph.appendNode(graph.create("prim::ListConstruct", entering, 1)).output().setType(tensors)
    constant = graph.create("prim::Constant", [], 1)
    constant.t_("value", program)
    constant.output().inferTypeFrom(program)
    graph.appendNode(constant)
    call = graph.appendNode(graph.create("neuron::forward_v2", [given, constant.output()], 1))
    call.output().setType(tensors)
    unpacked = graph.appendNode(graph.create("prim::ListUnpack", [call.output()], len(leaving)))
    for value, output in zip(leaving, unpacked.outputs()):
        places[value.debugName()] = output.setType(torch._C.TensorType.get())


torch.neuron = sys.modules[__name__]
