"""Graphs of opset 18 written for opset 17, and the IR version of a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from hfexport.backends.onnx.older_opset import to_older_opset
from hfexport.backends.onnx.skeleton import _without_weights
from hfexport.errors import ExportError


def _model(nodes: Sequence[onnx.NodeProto], opset: int = 18, element: int = TensorProto.FLOAT) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", element, ["n", 6])],
        [helper.make_tensor_value_info(nodes[-1].output[0], element, ["a", "b"])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def _constant(name: str, values: list[int]) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(values, np.int64)))


def _run(model: onnx.ModelProto) -> Any:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.arange(18, dtype=np.float32).reshape(3, 6) - 4})[0]


@pytest.mark.parametrize("operator", ["ReduceMean", "ReduceMax", "ReduceL2", "ReduceLogSumExp", "ReduceProd"])
@pytest.mark.parametrize("axes", [None, [1], [-1, 0], []])
def test_a_reduction_has_its_axes_as_an_attribute(operator: str, axes: list[int] | None) -> None:
    nodes = [] if axes is None else [_constant("axes", axes)]
    nodes.append(helper.make_node(operator, ["x"] if axes is None else ["x", "axes"], ["y"], keepdims=1))
    newer = _model(nodes)
    model = ir.from_proto(newer)
    to_older_opset(model, 17)
    older = _without_weights(model)
    onnx.checker.check_model(older, full_check=True)
    assert (older.opset_import[0].version, older.ir_version) == (17, 8)
    np.testing.assert_array_equal(_run(older), _run(newer))


def test_axes_behind_a_reshape_are_known() -> None:
    nodes = [
        _constant("axis", [-1]),
        helper.make_node("Reshape", ["axis", "axis"], ["axes"]),
        helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=1),
    ]
    newer = _model(nodes)
    model = ir.from_proto(newer)
    to_older_opset(model, 17)
    np.testing.assert_array_equal(_run(_without_weights(model)), _run(newer))


def test_equal_parts_of_a_split_need_no_number() -> None:
    parts = helper.make_node("Split", ["x"], ["a", "b", "c"], axis=1, num_outputs=3)
    newer = _model([parts, helper.make_node("Add", ["a", "c"], ["y"])])
    model = ir.from_proto(newer)
    to_older_opset(model, 17)
    np.testing.assert_array_equal(_run(_without_weights(model)), _run(newer))


@pytest.mark.parametrize(
    ("node", "element"),
    [
        (helper.make_node("BitwiseNot", ["x"], ["y"]), TensorProto.INT64),
        (helper.make_node("Mish", ["x"], ["y"]), TensorProto.FLOAT),
        (helper.make_node("Split", ["x"], ["y", "z"], axis=1, num_outputs=4), TensorProto.FLOAT),
        (helper.make_node("ReduceMean", ["x", "unknown"], ["y"]), TensorProto.FLOAT),
        (helper.make_node("ReduceMean", ["x"], ["y"], noop_with_empty_axes=1), TensorProto.FLOAT),
        (helper.make_node("Resize", ["x", "", "", "unknown"], ["y"], antialias=1), TensorProto.FLOAT),
        (helper.make_node("Pad", ["x", "unknown", "", "unknown"], ["y"]), TensorProto.FLOAT),
        (helper.make_node("ScatterND", ["x", "unknown", "x"], ["y"], reduction="max"), TensorProto.FLOAT),
    ],
    ids=lambda value: value.op_type if isinstance(value, onnx.NodeProto) else "",
)
def test_an_operator_that_the_opset_lacks_is_named(node: onnx.NodeProto, element: int) -> None:
    proto = _model([node], element=element)
    proto.graph.input.append(helper.make_tensor_value_info("unknown", TensorProto.INT64, ["k"]))
    with pytest.raises(ExportError, match=f"opset 17 cannot express {node.op_type}"):
        to_older_opset(ir.from_proto(proto), 17)


def test_operators_of_branches_are_found() -> None:
    inner = helper.make_graph(
        [helper.make_node("Mish", ["x"], ["inside"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inside", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=inner),
    ]
    with pytest.raises(ExportError, match="Mish"):
        to_older_opset(ir.from_proto(_model(nodes)), 17)


@pytest.mark.parametrize(("opset", "ir_version"), [(17, 8), (18, 8), (19, 9), (20, 9), (21, 10), (22, 10), (23, 11)])
def test_the_ir_version_is_the_lowest_that_the_opset_allows(opset: int, ir_version: int) -> None:
    model = ir.from_proto(_model([helper.make_node("Relu", ["x"], ["y"])], opset))
    model.graph.opset_imports["com.microsoft"] = 1
    assert _without_weights(model).ir_version == ir_version
