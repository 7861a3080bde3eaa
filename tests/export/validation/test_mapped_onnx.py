"""An ONNX file with its weights inside is read without them, answers the same from mapped pages, and damage is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from hfexport.errors import ValidationError
from hfexport.validation.mapped_onnx import read_mapped
from hfexport.validation.sessions import Expected, OnnxSession
from hfexport.validation.weights import hash_onnx

WIDTH = 512


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A chain of matrices in float16, which ONNX Runtime casts to float32 on CPU; and a small tensor."""
    random = np.random.default_rng(0)
    half, single = TensorProto.FLOAT16, TensorProto.FLOAT
    names = [f"weight.{number}" for number in range(8)]
    matrices = [random.normal(0, WIDTH**-0.5, (WIDTH, WIDTH)).astype(np.float16) for _ in names]
    nodes = [helper.make_node("Cast", ["x"], ["hidden.0"], to=half)]
    nodes += [
        helper.make_node("MatMul", [f"hidden.{number}", name], [f"hidden.{number + 1}"])
        for number, name in enumerate(names)
    ]
    nodes += [
        helper.make_node("Cast", ["hidden.8"], ["wide"], to=single),
        helper.make_node("Add", ["wide", "b"], ["y"]),
    ]
    initializers = [numpy_helper.from_array(array, name) for array, name in zip(matrices, names, strict=True)]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", single, ["batch", WIDTH])],
        [helper.make_tensor_value_info("y", single, ["batch", WIDTH])],
        [*initializers, numpy_helper.from_array(np.full(WIDTH, 0.5, np.float32), "b")],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def test_large_weights_become_references_to_the_same_file(model: Path) -> None:
    whole, mapped = onnx.load(model), read_mapped(model)
    assert mapped.ByteSize() < 2**13 < whole.ByteSize()
    for wanted, found in zip(whole.graph.initializer, mapped.graph.initializer, strict=True):
        assert (found.name, found.dims, found.data_type) == (wanted.name, wanted.dims, wanted.data_type)
        place = {entry.key: entry.value for entry in found.external_data}
        if wanted.name == "b":
            assert found == wanted
            continue
        start = int(place["offset"])
        assert place["location"] == "model.onnx"
        assert model.read_bytes()[start : start + int(place["length"])] == wanted.raw_data
    assert (mapped.graph.node, mapped.opset_import) == (whole.graph.node, whole.opset_import)


def test_a_frugal_session_maps_them_and_answers_as_a_default_one(model: Path) -> None:
    expected = Expected(model, [("x", "float32")], ["y"])
    frugal = OnnxSession(expected, 1 << 60, 1)
    assert frugal.kind == "frugal"
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(model))]
    assert mapped
    x = np.random.default_rng(1).normal(size=(3, WIDTH)).astype(np.float32)
    wanted = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    np.testing.assert_allclose(frugal.ask({"x": x})["y"], wanted, atol=5e-2)


def test_hashes_are_those_of_external_weights(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "external" / "model.onnx"
    other.parent.mkdir()
    onnx.save(onnx.load(model), other, save_as_external_data=True, location="model.onnx_data", size_threshold=0)
    assert hash_onnx(model) == hash_onnx(other)
    changed = bytearray(model.read_bytes())
    changed[len(changed) // 2] ^= 1
    model.write_bytes(changed)
    assert hash_onnx(model) != hash_onnx(other)


@pytest.mark.parametrize("keep", [1, 40, 70_000, -1])
def test_a_file_that_ends_early_is_refused(model: Path, keep: int) -> None:
    model.write_bytes(model.read_bytes()[:keep])
    with pytest.raises(ValidationError, match=r"model.onnx is not an ONNX model"):
        read_mapped(model)


@pytest.mark.parametrize(
    "content", [b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x3f\x00", b"\x80" * 20, b"plain text"]
)
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ValidationError):
        read_mapped(path)
