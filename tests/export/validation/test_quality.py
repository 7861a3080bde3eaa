"""Broken variants of each kind must fail: a weight zeroed, a scale wrong, an operator dropped, a weight lost."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from broken import METADATA, export_config, replace_uses
from hfexport.backends.base import Artifact, ExportJob
from hfexport.backends.onnx.backend import OnnxBackend
from hfexport.backends.onnx.variants.make import make_variant
from hfexport.backends.onnx.variants.names import VARIANTS
from hfexport.export_config import ExportConfig
from hfexport.validation.quality import ModelAnswers, Quality, measure_variant, start_model
from hfexport.validation.quality.stored import compare_stored
from tiny import make_checkpoint

KINDS = ("fp16", "int8", "uint8", "q4", "q4f16", "bnb4")
"""One variant for each way in which weights are stored."""

Edit = Callable[[onnx.ModelProto], None]


@dataclass(frozen=True)
class Model:
    """A tiny model with its plain file, its file of each variant, and its answers."""

    config: ExportConfig
    plain: Artifact
    variants: dict[str, Artifact]
    answers: ModelAnswers

    def judge(self, name: str, artifact: Artifact, folder: Path) -> Quality:
        return measure_variant(
            [artifact], [self.plain], self.answers, VARIANTS[name].limits, folder=folder, env=os.environ, timeout_s=300
        )

    def broken(self, name: str, edit: Edit, folder: Path) -> Artifact:
        """The variant's file, changed by `edit`."""
        model = onnx.load(self.variants[name].path)
        edit(model)
        path = folder / "model.onnx"
        onnx.save(model, path)
        return Artifact("onnx", path, (path,), config=self.config)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    folder = tmp_path_factory.mktemp("quality")
    checkpoint = make_checkpoint(folder / "checkpoint", "bert", "default", tokenizer=True, hidden_size=64)
    config = export_config(checkpoint, "default")
    bases = {}
    for dtype in ("fp32", "fp16"):
        (folder / dtype).mkdir()
        job = ExportJob(checkpoint, config, dtype, folder / dtype, METADATA)
        bases[dtype] = OnnxBackend().export(job)
    variants = {}
    for name in KINDS:
        path = folder / f"{name}.onnx"
        files = make_variant(VARIANTS[name], bases[VARIANTS[name].base].path, path)
        variants[name] = Artifact("onnx", path, tuple(files), config=config)
    answers = start_model(
        checkpoint, [config], tokenizer=checkpoint, data=None, folder=folder / "answers", env=os.environ
    )
    with answers.worker:
        yield Model(config, bases["fp32"], variants, answers)


def zero_a_weight(model: onnx.ModelProto) -> None:
    """Zero the largest stored weight."""
    tensor = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    tensor.raw_data = bytes(len(tensor.raw_data))


def scale_a_layer(model: onnx.ModelProto) -> None:
    """Make one layer's weights half again as large."""
    named = {tensor.name: tensor for tensor in model.graph.initializer}
    ends = ("_scales_1", "_block_scales", "_nf4_largest", ".weight")
    name = next(name for end in ends for name in named if "intermediate" in name and name.endswith(end))
    array = numpy_helper.to_array(named[name])
    named[name].raw_data = (array * array.dtype.type(1.5)).tobytes()


def lose_a_weight(model: onnx.ModelProto) -> None:
    """Take the weights of one layer from another of the same shape."""
    names = [tensor.name for tensor in model.graph.initializer if "attention" in tensor.name and "dense" in tensor.name]
    weights = [name for name in names if "bias" not in name and "Norm" not in name]
    layers = sorted({name.split(".")[2] for name in weights})
    for name in [name for name in weights if f".{layers[0]}." in name]:
        replace_uses(model.graph, name, name.replace(f".{layers[0]}.", f".{layers[1]}."))
        model.graph.initializer.remove(next(tensor for tensor in model.graph.initializer if tensor.name == name))


def drop_an_operator(model: onnx.ModelProto) -> None:
    """Leave the activation of each layer out."""
    for node in [node for node in model.graph.node if node.op_type == "Gelu"]:
        replace_uses(model.graph, node.output[0], node.input[0])
        model.graph.node.remove(node)


def drop_the_mask(model: onnx.ModelProto) -> None:
    """Attend to padding: multiply the mask by zero and add one."""
    added = [
        onnx.helper.make_node("Constant", [], ["one"], value_int=1),
        onnx.helper.make_node("Max", ["attention_mask", "one"], ["all_ones"]),
    ]
    replace_uses(model.graph, "attention_mask", "all_ones")
    for node in reversed(added):
        model.graph.node.insert(0, node)


@pytest.mark.parametrize("name", KINDS)
def test_a_variant_as_it_is_made_passes(model: Model, name: str, tmp_path: Path) -> None:
    quality = model.judge(name, model.variants[name], tmp_path)
    assert quality.failures == ()
    assert quality.verdict == "passed"
    assert (quality.data, quality.samples) == ("shipped texts", 63)
    values = {measure.name: measure.value for measure in quality.measures}
    assert 0 < values["weight_error"] <= 1
    assert values["mean_cosine"] < 1


@pytest.mark.parametrize("edit", [zero_a_weight, scale_a_layer, lose_a_weight])
@pytest.mark.parametrize("name", KINDS)
def test_a_wrong_weight_is_found(model: Model, name: str, edit: Edit, tmp_path: Path) -> None:
    error, worst, missing = compare_stored(model.plain.path, model.broken(name, edit, tmp_path).path)
    assert error > 1 or missing
    assert (worst or missing[0]) in {tensor.name for tensor in onnx.load(model.plain.path).graph.initializer}


@pytest.mark.parametrize("name", KINDS)
def test_weights_are_compared_in_parts(model: Model, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result does not depend on the number of rows that are compared at a time."""
    whole = compare_stored(model.plain.path, model.variants[name].path)
    monkeypatch.setattr("hfexport.validation.quality.stored.PART_ELEMENTS", 100)
    assert compare_stored(model.plain.path, model.variants[name].path) == whole


@pytest.mark.parametrize("edit", [drop_an_operator, drop_the_mask, scale_a_layer, lose_a_weight])
@pytest.mark.parametrize("name", ["fp16", "int8", "q4", "bnb4"])
def test_a_broken_file_fails(model: Model, name: str, edit: Edit, tmp_path: Path) -> None:
    quality = model.judge(name, model.broken(name, edit, tmp_path), tmp_path)
    assert quality.verdict == "failed"
    assert quality.failures


def test_a_file_that_does_not_load_fails(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no graph")
    quality = model.judge("int8", Artifact("onnx", path, (path,), config=model.config), tmp_path)
    assert quality.verdict == "failed"
    assert "model.onnx" in quality.reason


def test_values_that_are_no_numbers_fail(model: Model, tmp_path: Path) -> None:
    def poison(proto: onnx.ModelProto) -> None:
        tensor = next(tensor for tensor in proto.graph.initializer if tensor.name.endswith("LayerNorm.bias"))
        tensor.raw_data = np.full_like(numpy_helper.to_array(tensor), np.nan).tobytes()

    quality = model.judge("int8", model.broken("int8", poison, tmp_path), tmp_path)
    assert quality.verdict == "failed"
