"""Graphs that find the padding at the start of prompts, on a graph that returns the mask and positions that it sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from hfexport.backends.onnx.targets.left_padding import can_find_padding, write_left_padded

KEY, PRESENT = "past_key_values.0.key", "present.0.key"
PAD = 7
MASK, POSITIONS, KEYS = range(3)


def _write(folder: Path, opset: int) -> Path:
    """Write a decoder whose keys are the token ids plus one, in two heads of size 2."""
    integers, floats = TensorProto.INT64, TensorProto.FLOAT
    nodes = [
        helper.make_node("Identity", ["attention_mask"], ["seen_mask"]),
        helper.make_node("Identity", ["position_ids"], ["seen_positions"]),
        helper.make_node("Cast", ["input_ids"], ["ids"], to=floats),
        helper.make_node("Add", ["ids", "one"], ["not_zero"]),
        helper.make_node("Unsqueeze", ["not_zero", "axes"], ["narrow"]),
        helper.make_node("Concat", ["narrow", "narrow"], ["wide"], axis=3),
        helper.make_node("Concat", ["wide", "wide"], ["keys"], axis=1),
        helper.make_node("Concat", [KEY, "keys"], [PRESENT], axis=2),
    ]
    value = helper.make_tensor_value_info
    cache = ["batch", 2, None, 2]
    graph = helper.make_graph(
        nodes,
        "decoder",
        [
            *(value(name, integers, ["batch", None]) for name in ("input_ids", "attention_mask", "position_ids")),
            value(KEY, floats, cache),
        ],
        [
            *(value(name, integers, ["batch", None]) for name in ("seen_mask", "seen_positions")),
            value(PRESENT, floats, cache),
        ],
        [numpy_helper.from_array(np.float32(1), "one"), numpy_helper.from_array(np.array([1, 3]), "axes")],
    )
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def _call(session: Any, ids: Any, keys: Any, mask: Any | None = None) -> list[Any]:
    """Return the outputs for a mask of ones and positions that count padding, as GenAI passes them."""
    ids = np.array(ids)
    past = keys.shape[2]
    length = past + ids.shape[1]
    given = {
        **{"input_ids": ids, KEY: keys, "attention_mask": np.ones((len(ids), length), np.int64)},
        "position_ids": np.tile(np.arange(past, length), (len(ids), 1)),
    }
    return list(session.run(None, given if mask is None else {**given, "attention_mask": np.array(mask)}))


@pytest.fixture(params=[17, 20])
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    path = _write(tmp_path, request.param)
    assert can_find_padding(path)
    made = write_left_padded(path, tmp_path / "model_genai.onnx", KEY, PAD)
    onnx.checker.check_model(made)
    return onnxruntime.InferenceSession(made, providers=["CPUExecutionProvider"])


def _empty(rows: int) -> Any:
    return np.zeros((rows, 2, 0, 2), np.float32)


def test_padding_at_the_start_stays_hidden_in_later_calls(session: Any) -> None:
    first = _call(session, [[1, 2, 3, 4], [PAD, PAD, 5, 6]], _empty(2))
    assert first[MASK].tolist() == [[1, 1, 1, 1], [0, 0, 1, 1]]
    assert first[POSITIONS].tolist() == [[0, 1, 2, 3], [0, 0, 0, 1]]
    second = _call(session, [[8], [9]], first[KEYS])
    third = _call(session, [[8], [PAD]], second[KEYS])  # GenAI gives padding to a row that has ended
    assert third[MASK].tolist() == [[1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1]]
    assert (second[POSITIONS].tolist(), third[POSITIONS].tolist()) == ([[4], [2]], [[5], [3]])


@pytest.mark.parametrize("rows", [[[PAD, 1, 2]], [[PAD, 1, 2], [PAD, 1, 2]], [[PAD, 3, 4], [PAD, PAD, 5]]])
def test_a_start_token_with_the_padding_id_is_text(session: Any, rows: Any) -> None:
    mask = _call(session, rows, _empty(len(rows)))[MASK].tolist()
    assert mask == [[0 if row[:2] == [PAD, PAD] and place == 0 else 1 for place in range(3)] for row in rows]


def test_padding_at_the_end_is_the_masks(session: Any) -> None:
    first = _call(session, [[1, 2, 3], [5, PAD, PAD]], _empty(2), [[1, 1, 1], [1, 0, 0]])
    assert first[MASK].tolist() == [[1, 1, 1], [1, 0, 0]]
    second = _call(session, [[4], [6]], first[KEYS], [[1, 1, 1, 1], [1, 0, 0, 1]])
    assert second[MASK].tolist() == [[1, 1, 1, 1], [1, 0, 0, 1]]
    assert second[POSITIONS].tolist() == [[3], [3]]


def test_grouped_query_attention_takes_no_mask(tmp_path: Path) -> None:
    model = onnx.load(_write(tmp_path, 20))
    model.graph.node.append(helper.make_node("GroupQueryAttention", [PRESENT], ["x"], domain="com.microsoft"))
    onnx.save(model, tmp_path / "fused.onnx")
    assert not can_find_padding(tmp_path / "fused.onnx")
