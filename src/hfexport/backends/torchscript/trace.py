"""Trace a model, make the trace independent of devices, and write it as one self-contained file.

`torch.jit` is deprecated upstream in favour of `torch.export`, but its files remain the only format that runs from C++
and Python with torch alone.
"""

from __future__ import annotations

import keyword
import re
import zipfile
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from hfexport._internal.room import writing
from hfexport._internal.upstream.torch_core import TorchDispatchMode, graphs_of, list_of_ints
from hfexport.backends.base import ExportJob
from hfexport.backends.patches import model_patches, model_types
from hfexport.backends.torchscript.archive import make_reproducible
from hfexport.backends.torchscript.forked import write_in_fork
from hfexport.backends.torchscript.template import held_sizes
from hfexport.errors import MODEL_FAILURES, ExportError, first_line
from hfexport.export_config import axis_size, names_in
from hfexport.export_config.probes import make_inputs, trace_inputs
from hfexport.modeling.load import FlatModel, load_model, quiet
from hfexport.modeling.traceable import make_traceable
from hfexport.modeling.wrappers import flat_model
from hfexport.runtime import DESCRIPTION_FILE, Description

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from hfexport.export_config import TensorSpec

__all__ = ["Traced", "give_own_storage", "reads_numbers", "save_script", "tidy_graphs", "trace_model"]


@dataclass(frozen=True)
class Traced:
    """A traced model.

    Attributes:
        module: the trace.
        description: its inputs and outputs.
        operators: number of its nodes, by operator.
        untied: number of tensors that were given their own storage.
    """

    module: torch.jit.ScriptModule
    description: Description
    operators: Counter[str]
    untied: int

    @property
    def size_bytes(self) -> int:
        """Return the size of the tensors."""
        return sum({tensor.data_ptr(): tensor.nbytes for tensor in self.module.state_dict().values()}.values())


class _Watch(TorchDispatchMode):
    """Notices whether floating-point tensors are turned into numbers, such as by `Tensor.item`."""

    reads_numbers = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_floating_point():
            self.reads_numbers = True
        return func(*args, **(kwargs or {}))


def reads_numbers(flat: FlatModel, job: ExportJob) -> bool:
    """Run a model, and return whether it turned a floating-point tensor into a number, such as by `Tensor.item`.

    A number that comes from a weight is a constant of the trace, which then is no trace of other weights.
    """
    make_traceable(flat.model)
    watch = _Watch()
    try:
        with quiet(), torch.no_grad(), model_patches(*model_types(job.config.config)), watch:
            flat(*(torch.from_numpy(array) for array in _example(job).values()))
    except MODEL_FAILURES:
        return True
    return watch.reads_numbers


def trace_model(
    job: ExportJob, change: Callable[[FlatModel, Mapping[str, torch.Tensor]], None] | None = None
) -> Traced:
    """Trace the model at the sizes of the job's example.

    Args:
        job: describes the artifact.
        change: called with the model and its example before the trace, to replace layers.

    Raises:
        ExportError: the model cannot be traced.
        CheckpointError, UnsupportedError: the weights do not fit the model or the task.
    """
    config = job.config
    model = load_model(job.checkpoint, config, job.dtype)
    make_traceable(model)
    flat = flat_model(model, config)
    untied = give_own_storage(flat.model, copy=_alias)
    held = held_sizes(config, job.fixed_sizes)
    example = {name: torch.from_numpy(array) for name, array in _example(job).items()}
    traced = _trace(flat, example, job, change)
    _refuse_other_sizes(traced.graph, config.inputs, held)
    operators = tidy_graphs(traced, tuple(example))
    description = Description.of(config, job.dtype, fixed_sizes=held, metadata=job.metadata)
    return Traced(traced, description, operators, untied)


def _example(job: ExportJob) -> Mapping[str, NDArray[Any]]:
    """Return the inputs that the model is traced with."""
    if not job.fixed_sizes:
        return trace_inputs(job.config, job.dtype)
    return make_inputs(job.config, held_sizes(job.config, job.fixed_sizes), job.dtype, padding="right", seed=7)


def _clone(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def _alias(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor with a second storage over the same memory, which `torch.jit.save` writes separately."""
    plain = tensor.detach()
    return torch.from_numpy(plain.numpy()) if plain.is_contiguous() and plain.numel() else _clone(plain)


@torch.no_grad()
def give_own_storage(model: torch.nn.Module, *, copy: Callable[[torch.Tensor], torch.Tensor] = _clone) -> int:
    """Copy every parameter and buffer that shares memory with an earlier one, and disable all gradients.

    Tied weights are one tensor under two names, and a loaded artifact could not keep them tied: moving one to another
    device or dtype would not change the other.

    Args:
        model: model whose tensors are replaced in place.
        copy: returns a tensor with its own storage.

    Returns:
        Number of copied tensors.
    """
    model.requires_grad_(False)
    seen: set[int] = set()
    cloned = 0
    for module in model.modules():
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        for name, tensor in own:
            storage = tensor.untyped_storage()
            whole = storage.nbytes() == tensor.numel() * tensor.element_size() and tensor.is_contiguous()
            if storage.data_ptr() in seen or not whole:
                own_tensor = copy(tensor)
                parameter = isinstance(tensor, torch.nn.Parameter)
                setattr(module, name, torch.nn.Parameter(own_tensor, requires_grad=False) if parameter else own_tensor)
                storage = own_tensor.untyped_storage()
                cloned += 1
            if storage.nbytes():
                seen.add(storage.data_ptr())
    return cloned


@contextmanager
def parsable_classes(model: torch.nn.Module) -> Iterator[None]:
    """Give the model's classes module names that `torch.jit.load` can parse, during tracing.

    A trace names the type of each submodule after its class. Code from a checkpoint is imported from a folder named
    after a hash, which may start with a digit: the trace could be saved but not loaded.
    """
    classes = {type(module) for module in model.modules()}
    before = {found: found.__module__ for found in classes}
    named = {found: ".".join(map(_identifier, name.split("."))) for found, name in before.items()}
    changed = [found for found in classes if named[found] != before[found]]
    for found in changed:
        found.__module__ = named[found]
    try:
        yield
    finally:
        for found in changed:
            found.__module__ = before[found]


def _identifier(part: str) -> str:
    """Return a part of a module's name, changed to a valid identifier."""
    if part.isidentifier() and part.isascii() and not keyword.iskeyword(part):
        return part
    return "_" + re.sub(r"[^0-9A-Za-z_]", lambda found: f"_{ord(found[0]):x}_", part)


def _trace(
    flat: FlatModel,
    example: Mapping[str, torch.Tensor],
    job: ExportJob,
    change: Callable[[FlatModel, Mapping[str, torch.Tensor]], None] | None,
) -> torch.jit.ScriptModule:
    try:
        # Validation runs the saved file in another process and at other shapes, which covers `check_trace`.
        with quiet(), torch.no_grad(), _plain_functions(), model_patches(*model_types(job.config.config)):
            if change is not None:
                change(flat, example)
            with parsable_classes(flat):
                traced: torch.jit.ScriptModule = torch.jit.trace(flat, tuple(example.values()), check_trace=False)
    except (*MODEL_FAILURES, torch.jit.Error) as error:
        raise ExportError(
            f"{job.checkpoint}: task {job.config.task.name} cannot be traced to TorchScript: {first_line(error, limit=200, named=True)}",
            remedy="Export this model to ONNX alone: formats onnx.",
        ) from error
    return traced


@contextmanager
def _plain_functions() -> Iterator[None]:
    """Call the `forward` of autograd functions directly: Python calls cannot be saved, gradients are not needed.

    torch.jit.trace records such a call as a Python call: https://github.com/pytorch/pytorch/issues/32822. This can go
    when it inlines them, as the ONNX exporter does.
    """
    apply = torch.autograd.Function.__dict__["apply"]

    def call(function: Any, *args: Any, **kwargs: Any) -> Any:
        takes_context = function.setup_context is torch.autograd.Function.setup_context
        context = (torch.autograd.function.FunctionCtx(),) if takes_context else ()
        return function.forward(*context, *args, **kwargs)

    # mypy does not let a method be replaced, which is what this context does.
    torch.autograd.Function.apply = classmethod(call)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        torch.autograd.Function.apply = apply  # type: ignore[method-assign]


def _refuse_other_sizes(graph: Any, specs: Sequence[TensorSpec], held: Mapping[str, int]) -> None:
    """Make the trace fail on inputs whose size differs from a fixed one, such as an image's.

    A trace has lost the model's own checks and would return wrong outputs for some sizes. Unflattening an axis to its
    own size changes nothing; for another size it fails.
    """
    first = next(iter(graph.nodes()))
    tensors = list(graph.inputs())[1:]  # the first is the module
    with graph.insert_point_guard(first):
        for tensor, spec in zip(tensors, specs, strict=True):
            value = tensor
            for dimension, size in _fixed_sizes(spec, held).items():
                sizes = graph.create("prim::ListConstruct", [graph.insertConstant(size)])
                graph.insertNode(sizes)
                sizes.output().setType(list_of_ints())
                checked = graph.create("aten::unflatten", [value, graph.insertConstant(dimension), sizes.output()])
                graph.insertNode(checked)
                value.replaceAllUsesAfterNodeWith(checked, checked.output())
                value = checked.output()


def _fixed_sizes(spec: TensorSpec, held: Mapping[str, int]) -> dict[int, int]:
    """Return sizes of an input's fixed dimensions, except heads of a cache: others do not fit the model's weights."""
    cached = spec.role in ("past_key", "past_value")
    sizes = {index: axis for index, axis in enumerate(spec.axes) if isinstance(axis, str) or not cached}
    return {
        index: axis_size(axis, held) for index, axis in sizes.items() if all(name in held for name in names_in(axis))
    }


def tidy_graphs(traced: torch.jit.ScriptModule, input_names: Sequence[str] = ()) -> Counter[str]:
    """Remove artefacts of tracing: the device that it ran on, and dropout in eval mode.

    Args:
        traced: traced module; changed in place.
        input_names: argument names of its `forward`; characters that Python does not allow become `_`.

    Returns:
        Number of remaining nodes, by operator.
    """
    graphs = [(graph, module is traced) for module in traced.modules() for graph in graphs_of(module)]
    arguments = ["self", *(re.sub(r"\W", "_", name) for name in input_names)] if input_names else []
    for graph, is_forward in graphs:
        _follow_device_of_input(graph)
        _remove_dropout(graph)
        _name_values(graph, arguments if is_forward else [])
    return Counter(str(node.kind()) for graph, _ in graphs for node in graph.nodes())


def _follow_device_of_input(graph: Any) -> None:
    """Replace `device="cpu"` in the trace by `device=input.device`, so that the artifact can be moved to a GPU."""
    tensors = [value for value in graph.inputs() if value.type().kind() == "TensorType"]
    constants = [
        node
        for node in graph.nodes()
        if node.kind() == "prim::Constant" and node.output().type().kind() == "DeviceObjType"
    ]
    if not tensors or not constants:
        return
    device = graph.create("prim::device", [tensors[0]])
    device.output().setType(constants[0].output().type())
    graph.prependNode(device)
    for constant in constants:
        constant.output().replaceAllUsesWith(device.output())
        constant.destroy()


def _remove_dropout(graph: Any) -> None:
    for node in list(graph.nodes()):
        if node.kind() == "aten::dropout":
            tensor, _, training = node.inputs()
            if training.toIValue() is False:
                node.output().replaceAllUsesWith(tensor)
                node.destroy()


def _name_values(graph: Any, arguments: Sequence[str]) -> None:
    """Give every value a unique name; inputs get those of `arguments`, if any.

    `torch.jit.save` numbers unnamed and equally named values by a counter that depends on other code in the same file,
    and breaks lines by the width of these numbers.
    """
    names = set(arguments)
    taken: Counter[str] = Counter()
    inputs = list(graph.inputs())
    for value, name in zip(inputs, arguments, strict=False):
        value.setDebugName(name)
    computed = (node for node in graph.nodes() if node.kind() != "prim::Constant")
    for value in [*inputs[len(arguments) :], *(output for node in computed for output in node.outputs())]:
        base = value.debugName().partition(".")[0]
        base = "v" if base.isdigit() else base
        while (name := f"{base}_{taken[base]}") in names:
            taken[base] += 1
        value.setDebugName(name)
        taken[base] += 1


def save_script(
    script: torch.jit.ScriptModule, path: Path, description: str, needed_bytes: int, job: ExportJob
) -> None:
    """Write a module as a reproducible archive.

    Args:
        script: traced or frozen module.
        path: new file.
        description: content of its extra file, see `hfexport.runtime.Description`.
        needed_bytes: size of its tensors.
        job: describes the artifact, for messages.

    Raises:
        ExportError: the module cannot be saved, or the disk is full.
    """
    extra = {DESCRIPTION_FILE: description}
    try:
        with quiet(), writing(path.parent, needed_bytes):
            write_in_fork(lambda: torch.jit.save(script, str(path), _extra_files=extra), path, needed_bytes)
            make_reproducible(path)
    except (OSError, RuntimeError, ValueError, zipfile.BadZipFile) as error:
        raise ExportError(
            f"{job.checkpoint}: the trace for task {job.config.task.name} cannot be saved as {path.name}: {first_line(error, limit=200, named=True)}",
            remedy="Check that the output folder has room for another copy of the weights;"
            " if it has, export this model to ONNX alone: formats onnx.",
        ) from error
