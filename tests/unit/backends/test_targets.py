"""Files of the targets, and external data in several files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from hfexport.backends.onnx.targets import TARGETS, Exported
from hfexport.backends.onnx.writer import write_model
from hfexport.backends.tensors import Weight


def _written(folder: Path, chunk_bytes: int | None) -> list[Path]:
    """Write a model that adds three weights of 64 kB."""
    names = ["a", "b", "c"]
    nodes = [helper.make_node("Sum", ["x", *names], ["y"])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [16384]) for name in ("x", "y")]
    skeleton = helper.make_model(
        helper.make_graph(nodes, "g", values[:1], values[1:]), opset_imports=[helper.make_opsetid("", 18)], ir_version=8
    )
    weights = [
        Weight(name, TensorProto.FLOAT, (16384,), torch.full((16384,), 10.0**n), torch.float32)
        for n, name in enumerate(names)
    ]
    return write_model(skeleton, weights, folder / "model.onnx", lambda _: None, external=True, chunk_bytes=chunk_bytes)


@pytest.mark.parametrize(("chunk_bytes", "chunks"), [(None, 1), (10**6, 1), (150_000, 2), (70_000, 3), (1, 3)])
def test_external_data_is_split_into_chunks(chunk_bytes: int | None, chunks: int, tmp_path: Path) -> None:
    files = _written(tmp_path, chunk_bytes)
    names = ["model.onnx", "model.onnx_data", "model.onnx_data_1", "model.onnx_data_2"]
    assert [path.name for path in files] == names[: chunks + 1]
    onnx.checker.check_model(files[0])
    session = onnxruntime.InferenceSession(files[0], providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {"x": np.zeros(16384, np.float32)})
    assert set(answer.tolist()) == {111.0}


def _settings(folder: Path, files: list[Path], variants: list[str], **given: Any) -> Any:
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", **given}))
    TARGETS["transformersjs"].write(Exported(folder, (), files, variants))
    values = json.loads((folder / "config.json").read_text())
    assert values["model_type"] == "bert"
    return values["transformers.js_config"]


def test_transformers_js_is_told_of_chunks_and_the_best_variant(tmp_path: Path) -> None:
    files = _written(tmp_path, 70_000)
    assert _settings(tmp_path, files, []) == {"dtype": "fp32", "use_external_data_format": {"model.onnx": 3}}
    inside = [tmp_path / "model.onnx", tmp_path / "model_q4.onnx", tmp_path / "model_quantized.onnx"]
    assert _settings(tmp_path, inside, ["q4", "q8", "q4f16"]) == {"dtype": "q8"}
    given = {"kept": 1, "dtype": "q4", "use_external_data_format": True}
    assert _settings(tmp_path, inside, ["fp16"], **{"transformers.js_config": given}) == {"kept": 1, "dtype": "fp16"}


def test_a_linked_config_of_the_checkpoint_stays(tmp_path: Path) -> None:
    original = tmp_path / "original.json"
    original.write_text("{}")
    (tmp_path / "config.json").symlink_to(original)
    TARGETS["transformersjs"].write(Exported(tmp_path, (), [], []))
    assert original.read_text() == "{}" and not (tmp_path / "config.json").is_symlink()
