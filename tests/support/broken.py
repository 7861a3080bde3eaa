"""Artifacts that are wrong in one way each, made from tiny checkpoints, and the reference that should notice.

Each is a real one: exported by the back end and then changed in its graph, or traced from a model wrong on purpose.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from transformers import AutoConfig

from hfexport.backends.base import Artifact, ExportJob
from hfexport.backends.onnx.backend import OnnxBackend
from hfexport.export_config import ExportConfig
from hfexport.export_config.builtin import config_class_for
from hfexport.export_config.probes import trace_inputs, validation_probes
from hfexport.export_config.tasks import TASKS
from hfexport.modeling.load import FlatModel, load_model, quiet
from hfexport.runtime import DESCRIPTION_FILE, Description
from hfexport.validation import ArtifactVerdict, Reference, resolve_tolerance, start_reference, validate
from tiny import make_checkpoint

METADATA = {"producer": "hfexport", "version": "0", "source": "tiny", "task": "any"}


@dataclass
class Case:
    """A tiny checkpoint with its reference.

    Attributes:
        checkpoint: its folder.
        config: its export config.
        reference: of the probes of validation.
        folder: for further files.
    """

    checkpoint: Path
    config: ExportConfig
    reference: Reference
    folder: Path

    @cached_property
    def onnx(self) -> Artifact:
        """The ONNX artifact as the back end makes it."""
        folder = self.folder / "onnx"
        folder.mkdir()
        job = ExportJob(self.checkpoint, self.config, "fp32", folder, METADATA)
        return OnnxBackend().export(job)

    def judge(self, artifact: Artifact, folder: Path, **options: Any) -> ArtifactVerdict:
        tolerance = resolve_tolerance(self.config, "fp32", None, None)
        options = {"timeout_s": 900.0, **options}
        return validate(
            artifact, self.config, self.reference, tolerance, folder=folder / "run", env=os.environ, **options
        )


def export_config(checkpoint: Path, task: str) -> ExportConfig:
    config = AutoConfig.from_pretrained(checkpoint)
    return config_class_for(config.model_type)(config, TASKS[task])


def reference_of(checkpoint: Path, config: ExportConfig, folder: Path) -> Reference:
    return start_reference(checkpoint, config, "fp32", validation_probes(config), folder=folder, env=os.environ)


def make_case(folder: Path, model_type: str, task: str) -> Iterator[Case]:
    """A checkpoint whose reference is being computed; it is stopped when the iterator is closed."""
    checkpoint = make_checkpoint(folder / "checkpoint", model_type, task)
    config = export_config(checkpoint, task)
    reference = reference_of(checkpoint, config, folder / "reference")
    with reference.worker:
        yield Case(checkpoint, config, reference, folder)


# How artifacts are broken.


def edited(case: Case, folder: Path, edit: Callable[[onnx.ModelProto], None]) -> Artifact:
    """The case's ONNX artifact with its graph changed by `edit`."""
    model = onnx.load(case.onnx.path)
    edit(model)
    onnx.checker.check_model(model)
    path = folder / "model.onnx"
    onnx.save(model, path)
    return Artifact("onnx", path, (path,))


def traced(case: Case, folder: Path, module: torch.nn.Module) -> Artifact:
    """A TorchScript artifact of `module`, described as the back end describes it.

    A `Scripted` module is compiled, around a trace of the model that it wraps.
    """
    example = tuple(torch.from_numpy(array) for array in trace_inputs(case.config, "fp32").values())
    with quiet(), torch.no_grad():
        if isinstance(module, Scripted):
            module.flat = torch.jit.trace(module.flat, example, check_trace=False)  # type: ignore[no-untyped-call]
            made = torch.jit.script(module.eval())
        else:
            made = torch.jit.trace(module.eval(), example, check_trace=False)  # type: ignore[no-untyped-call]
    description = Description.of(case.config, "fp32", fixed_sizes={}, metadata=METADATA)
    path = folder / "model.pt"
    torch.jit.save(made, str(path), _extra_files={DESCRIPTION_FILE: json.dumps(description.to_dict())})
    return Artifact("torchscript", path, (path,))


class Scripted(torch.nn.Module):
    """Base of wrappers that are compiled rather than traced, so that what they do beside calling the model stays."""

    def __init__(self, flat: torch.nn.Module) -> None:
        super().__init__()
        self.flat: Any = flat


def flat_model(case: Case, checkpoint: Path | None = None) -> FlatModel:
    names = [[spec.name for spec in specs] for specs in (case.config.inputs, case.config.outputs)]
    return FlatModel(load_model(checkpoint or case.checkpoint, case.config, "fp32"), *names)


def replace_uses(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for number, name in enumerate(node.input):
            if name == old:
                node.input[number] = new


def before_all(graph: onnx.GraphProto, *nodes: onnx.NodeProto) -> None:
    for node in reversed(nodes):
        graph.node.insert(0, node)


def behind_output(graph: onnx.GraphProto, name: str, *nodes: onnx.NodeProto) -> None:
    """Put `nodes` between the producer of output `name` and the output; they read `{name}_before`."""
    for node in graph.node:
        for number, output in enumerate(node.output):
            if output == name:
                node.output[number] = f"{name}_before"
    replace_uses(graph, name, f"{name}_before")
    graph.node.extend(nodes)


def constant(name: str, values: Any) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(values), name))


def scale_one_matrix(model: onnx.ModelProto) -> None:
    matrices = [
        weight
        for weight in model.graph.initializer
        if len(weight.dims) == 2 and weight.dims[0] == weight.dims[1] and weight.data_type == TensorProto.FLOAT
    ]
    scaled = numpy_helper.from_array(numpy_helper.to_array(matrices[0]) * np.float32(1.01), matrices[0].name)
    matrices[0].CopyFrom(scaled)


def ignore_mask(model: onnx.ModelProto) -> None:
    replace_uses(model.graph, "attention_mask", "all_seen")
    one = helper.make_tensor("one", TensorProto.INT64, [1], [1])
    before_all(
        model.graph,
        helper.make_node("Shape", ["attention_mask"], ["mask_shape"]),
        helper.make_node("ConstantOfShape", ["mask_shape"], ["all_seen"], value=one),
    )


def bake_sequence(model: onnx.ModelProto) -> None:
    replace_uses(model.graph, "input_ids", "baked_ids")
    before_all(
        model.graph,
        constant("baked_shape", [-1, 7]),
        helper.make_node("Reshape", ["input_ids", "baked_shape"], ["baked_ids"]),
    )


def swap_outputs(model: onnx.ModelProto) -> None:
    other = {"start_logits": "end_logits", "end_logits": "start_logits"}
    for node in model.graph.node:
        for number, name in enumerate(node.output):
            node.output[number] = other.get(name, name)
        for number, name in enumerate(node.input):
            node.input[number] = other.get(name, name)


def put_one_nan(model: onnx.ModelProto) -> None:
    behind_output(
        model.graph,
        "start_logits",
        constant("nan_at", [[0, 0]]),
        constant("nan", np.array([np.nan], np.float32)),
        helper.make_node("ScatterND", ["start_logits_before", "nan_at", "nan"], ["start_logits"]),
    )


def cast_output(to: int) -> Callable[[onnx.ModelProto], None]:
    def edit(model: onnx.ModelProto) -> None:
        behind_output(model.graph, "end_logits", helper.make_node("Cast", ["end_logits_before"], ["end_logits"], to=to))
        next(out for out in model.graph.output if out.name == "end_logits").type.tensor_type.elem_type = to

    return edit


def drop_output(model: onnx.ModelProto) -> None:
    model.graph.output.remove(next(out for out in model.graph.output if out.name == "end_logits"))


def drop_input(model: onnx.ModelProto) -> None:
    replace_uses(model.graph, "token_type_ids", "no_types")
    before_all(
        model.graph,
        helper.make_node("Sub", ["input_ids", "input_ids"], ["no_types"]),
    )
    model.graph.input.remove(next(value for value in model.graph.input if value.name == "token_type_ids"))


def add_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("head_mask", TensorProto.FLOAT, ["batch"]))


def narrow_input(model: onnx.ModelProto) -> None:
    replace_uses(model.graph, "input_ids", "wide_ids")
    before_all(model.graph, helper.make_node("Cast", ["input_ids"], ["wide_ids"], to=TensorProto.INT64))
    next(v for v in model.graph.input if v.name == "input_ids").type.tensor_type.elem_type = TensorProto.INT32


def break_at_run_time(model: onnx.ModelProto) -> None:
    behind_output(
        model.graph,
        "start_logits",
        constant("impossible", [1000003]),
        helper.make_node("Reshape", ["start_logits_before", "impossible"], ["reshaped"]),
        helper.make_node("Sub", ["start_logits_before", "start_logits_before"], ["zero"]),
        helper.make_node("ReduceMax", ["reshaped"], ["largest"], keepdims=0),
        helper.make_node("Add", ["zero", "largest"], ["start_logits"]),
    )


def ignore_past(model: onnx.ModelProto) -> None:
    names = [value.name for value in model.graph.input if value.name.startswith("past_key_values.")]
    for name in names:
        replace_uses(model.graph, name, f"{name}.gone")
    gone = [helper.make_node("Mul", [name, "nothing"], [f"{name}.gone"]) for name in names]
    before_all(model.graph, constant("nothing", np.float32(0)), *gone)


class Cut(torch.nn.Module):
    """Sees no more tokens than the example had: right up to there, and silently wrong past it."""

    def __init__(self, flat: FlatModel, length: int) -> None:
        super().__init__()
        self.flat = flat
        self.length = length

    def forward(self, input_ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> Any:
        seen = (torch.arange(mask.shape[-1]) < self.length).to(mask.dtype)
        return self.flat(input_ids, mask * seen, types)


class Loud(Scripted):
    """Prints what could be taken for commands, an answer or control sequences, then answers."""

    def forward(self, input_ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor):  # type: ignore[no-untyped-def]
        for _ in range(1000):
            print('::error::{"status": "ok"} \x1b[31m')
        return self.flat(input_ids, mask, types)


class Remembering(Scripted):
    """Answers one token alone rightly when that is the first call, and wrongly in later calls."""

    def __init__(self, flat: torch.nn.Module) -> None:
        super().__init__(flat)
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, input_ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor):  # type: ignore[no-untyped-def]
        start, end = self.flat(input_ids, mask, types)
        late = self.seen.clone()
        self.seen.copy_(torch.ones(1))
        if input_ids.numel() == 1:
            start = start + late
        return start, end


class Unwilling(Scripted):
    """Prints, and raises an error of its own."""

    def forward(self, input_ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor):  # type: ignore[no-untyped-def]
        print("::error::nothing to see here")
        if input_ids.numel() > 0:
            raise RuntimeError("it does not want to")
        return self.flat(input_ids, mask, types)


class Endless(Scripted):
    """Never answers."""

    def forward(self, input_ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor):  # type: ignore[no-untyped-def]
        count = input_ids.sum()
        while bool(count.isfinite().all()):
            count = count + 1
        return self.flat(input_ids, mask, types)


class Three(Scripted):
    """Gives one output more than it describes."""

    def forward(self, input_ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor):  # type: ignore[no-untyped-def]
        return (input_ids, mask, types)
