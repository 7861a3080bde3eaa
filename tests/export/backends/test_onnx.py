"""The ONNX file: names, axes, metadata, weights of the checkpoint, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from safetensors.numpy import load_file
from transformers import AutoConfig

from hfexport.backends.base import Artifact, ExportJob
from hfexport.backends.onnx.backend import OnnxBackend
from hfexport.backends.onnx.capture import capture
from hfexport.backends.onnx.passes import finish_graph
from hfexport.errors import ExportError
from hfexport.export_config import EncoderConfig, TensorSpec
from hfexport.export_config.builtin import config_class_for
from hfexport.export_config.tasks import TASKS
from tiny import make_checkpoint

METADATA = {"producer": "hfexport", "version": "1.2.3", "source": "tiny", "task": "any"}


def _export(
    folder: Path, model_type: str, task: str, opset: int = 20, *, progress: Any = None, **options: Any
) -> tuple[Path, Artifact]:
    checkpoint = make_checkpoint(folder / "checkpoint", model_type, task)
    config = config_class_for(model_type)(AutoConfig.from_pretrained(checkpoint), TASKS[task])
    (target := folder / "onnx").mkdir()
    job = ExportJob(checkpoint, config, "fp32", target, METADATA)
    job = job if progress is None else replace(job, progress=progress)
    return checkpoint, OnnxBackend(opset, **options).export(job)


def _dims(value: onnx.ValueInfoProto) -> list[str | int]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_a_decoder_has_names_axes_and_metadata_that_consumers_expect(tmp_path: Path) -> None:
    _, artifact = _export(tmp_path, "qwen3", "causal-lm-with-past")
    model = onnx.load(artifact.path)
    onnx.checker.check_model(model)
    inputs = {value.name: _dims(value) for value in model.graph.input}
    assert list(inputs)[:4] == ["input_ids", "attention_mask", "position_ids", "past_key_values.0.key"]
    assert inputs["attention_mask"] == ["batch_size", "past_sequence + sequence"]
    assert inputs["past_key_values.0.key"] == ["batch_size", 2, "past_sequence", 16]
    outputs = {value.name: _dims(value) for value in model.graph.output}
    assert outputs["logits"] == ["batch_size", "sequence", 113]
    assert outputs["present.1.value"] == ["batch_size", 2, "past_sequence + sequence", 16]
    assert (model.producer_name, model.producer_version) == ("hfexport", "1.2.3")
    assert {entry.key: entry.value for entry in model.metadata_props} == {"source": "tiny", "task": "any"}
    assert not {node.domain for node in model.graph.node} - {""}


@pytest.mark.parametrize("model_type", ["bert", "gptj"])
def test_a_session_has_nothing_to_complain_about(model_type: str, tmp_path: Path) -> None:
    _, artifact = _export(tmp_path, model_type, "default")
    nodes = onnx.load(artifact.path).graph.node
    assert "CastLike" not in {
        node.op_type for node in nodes
    }  # which ONNX Runtime cannot fold, and says so at every load
    assert {"Cast", "MatMul"} <= {node.op_type for node in nodes}


def test_tied_weights_are_stored_once_and_are_the_checkpoints(tmp_path: Path) -> None:
    checkpoint, artifact = _export(tmp_path, "gpt2", "causal-lm")
    stored = load_file(checkpoint / "model.safetensors")
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(artifact.path).graph.initializer}
    embeddings = [name for name, array in weights.items() if sorted(array.shape) == [32, 97]]
    assert len(embeddings) == 1
    np.testing.assert_array_equal(weights[embeddings[0]], stored["transformer.wte.weight"])


def test_external_data_holds_the_same_weights(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    _, inside = _export(tmp_path / "one", "bert", "masked-lm")
    told: list[int] = []
    totals: list[int] = []

    @contextmanager
    def progress(name: str, total: int) -> Iterator[Callable[[int], None]]:
        assert name == "model.onnx"
        totals.append(total)
        yield told.append

    _, beside = _export(tmp_path / "two", "bert", "masked-lm", external_data=True, progress=progress)
    assert [sum(told)] == totals and 0 < sum(told) <= beside.files[1].stat().st_size
    assert [path.name for path in beside.files] == ["model.onnx", "model.onnx_data"]
    onnx.checker.check_model(str(beside.path))
    one, two = onnx.load(inside.path).graph, onnx.load(beside.path).graph
    for left, right in zip(one.initializer, two.initializer, strict=True):
        assert left.name == right.name
        np.testing.assert_array_equal(numpy_helper.to_array(left), numpy_helper.to_array(right))


@pytest.mark.parametrize("opset", config_class_for("bert").opsets)
def test_the_opset_is_the_one_asked_for(opset: int, tmp_path: Path) -> None:
    _, artifact = _export(tmp_path, "bert", "sequence-classification", opset)
    model = onnx.load(artifact.path)
    onnx.checker.check_model(model)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [opset]


def test_an_input_without_effect_is_refused(tmp_path: Path) -> None:
    class WithUnusedInput(EncoderConfig):
        @property
        def inputs(self) -> tuple[TensorSpec, ...]:
            return (*super().inputs, TensorSpec("position_ids", ("batch", "sequence"), "int64", "position_ids"))

    checkpoint = make_checkpoint(tmp_path / "checkpoint", "deberta-v2", "default")
    config = WithUnusedInput(AutoConfig.from_pretrained(checkpoint), TASKS["default"])
    program = capture(config, "fp32", 20)
    with pytest.raises(ExportError, match="makes no use of its input position_ids"):
        finish_graph(program.model, config)
