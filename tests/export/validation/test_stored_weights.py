"""Every tensor that an artifact stores is the model's, bit for bit: probes alone cannot read every row of an embedding."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from hfexport.cli.main import main
from hfexport.validation.weights import hash_model, prove
from tiny import make_checkpoint

Change = Callable[[NDArray[Any]], NDArray[Any]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny llama (`checkpoint`) and its export (`out`)."""
    folder = tmp_path_factory.mktemp("stored")
    make_checkpoint(folder / "checkpoint", "llama", "causal-lm-with-past")
    assert main([str(folder / "checkpoint"), "--output", str(folder / "out")]) == 0
    return folder


def _manifest(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "hfexport.json").read_text(encoding="utf-8")))


def _correct_hash(export: Path, changed: Path) -> None:
    """Give the manifest the hash of a changed file, as somebody who forges it would."""
    manifest = _manifest(export)
    for artifact in manifest["artifacts"]:
        for file in artifact["files"]:
            if export / file["path"] == changed:
                content = changed.read_bytes()
                file |= {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (export / "hfexport.json").write_text(json.dumps(manifest), encoding="utf-8")


def _verify(export: Path, source: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    code = main(["verify", str(export), "--model", str(source)])
    return code, capsys.readouterr().err


def test_the_manifest_says_how_many_bytes_were_proved(made: Path) -> None:
    for artifact in _manifest(made / "out")["artifacts"]:
        weights = artifact["validation"]["weights"]
        assert weights["proved_bytes"] > 50_000
        assert all(constant["size_bytes"] < 1000 for constant in weights["constants"])


def _zero_row(array: NDArray[Any]) -> NDArray[Any]:
    array[-3] = 0
    return array


def _one_element(array: NDArray[Any]) -> NDArray[Any]:
    array.reshape(-1)[-1] = np.nextafter(array.reshape(-1)[-1], np.float32(9))
    return array


def _rolled(array: NDArray[Any]) -> NDArray[Any]:
    return np.roll(array, 1, axis=0)


@pytest.mark.parametrize("change", [_zero_row, _one_element, _rolled])
def test_a_changed_row_or_element_of_an_onnx_embedding(
    change: Change, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export = tmp_path / "out"
    shutil.copytree(made / "out", export)
    path = export / "onnx" / "model.onnx"
    model = onnx.load(path)
    tensor = next(one for one in model.graph.initializer if "embed_tokens" in one.name)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), tensor.name))
    onnx.save(model, path)
    _correct_hash(export, path)
    code, said = _verify(export, made / "checkpoint", capsys)
    assert code == 6
    assert "embed_tokens.weight is not the model's weight of that name" in said


def test_a_weight_under_another_name(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export = tmp_path / "out"
    shutil.copytree(made / "out", export)
    path = export / "onnx" / "model.onnx"
    model = onnx.load(path)
    tensor = next(one for one in model.graph.initializer if "embed_tokens" in one.name)
    forged = numpy_helper.from_array(_one_element(numpy_helper.to_array(tensor).copy()), "table")
    model.graph.initializer.append(forged)
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == tensor.name:
                node.input[index] = "table"
    onnx.save(model, path)
    _correct_hash(export, path)
    code, said = _verify(export, made / "checkpoint", capsys)
    assert code == 6
    assert "stored tensor table is no tensor of the model" in said


def test_a_changed_element_of_a_torchscript_weight(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export = tmp_path / "out"
    shutil.copytree(made / "out", export)
    path = export / "torchscript" / "model.pt"
    with zipfile.ZipFile(path) as archive:
        records = [(info, archive.read(info)) for info in archive.infolist()]
    largest = max((info for info, _ in records if "/data/" in info.filename), key=lambda info: info.file_size)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for info, content in records:
            changed = bytearray(content)
            if info.filename == largest.filename:
                changed[-4] ^= 1
            archive.writestr(info.filename, bytes(changed))
    _correct_hash(export, path)
    code, said = _verify(export, made / "checkpoint", capsys)
    assert code == 6
    assert "is not the model's weight of that name" in said


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_tensors_that_are_plain_attributes_are_the_models(dtype: torch.dtype) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(40, 40).half())
    model[0].table = torch.randn(40, 40)  # as the positions of VideoMAE, which the model converts when it is called
    known = hash_model(model)
    holder = torch.nn.Module()
    holder.register_buffer("table", model[0].table.to(dtype))
    assert not prove(hash_model(holder), [known], ["model"]).problems
    holder.table += 1
    assert "table is no tensor of the model" in prove(hash_model(holder), [known], ["model"]).problems[0]
