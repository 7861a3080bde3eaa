"""Every graph pass keeps the outputs, in the graph and in the branches of an `If`, and says whether it changed anything."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from hfexport.backends.onnx.folding import FoldSizesPass
from hfexport.backends.onnx.passes import (
    TRANSPOSED,
    ClearNotesPass,
    NameAxesPass,
    ReplaceCastLikePass,
    StaticReshapePass,
    TransposeWeightsPass,
)
from hfexport.export_config import TensorSpec

HEAD = '<ir_version: 8, opset_import: ["" : 18]>'
X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def branches(body: str, inputs: str = "float[batch, 3, 4] x") -> ir.Model:
    """A graph with `body`, which makes `{p}y` from x, in itself, and again in the branches of an `If`."""
    inside = body.format(p="then_")
    text = f"""{HEAD} main (bool c, {inputs}) => (y, z) {{
        {body.format(p="")}
        z = If (c) <
            then_branch = left () => (then_y) {{ {inside} }},
            else_branch = right () => (else_y) {{ else_y = Identity(y) }}
        >
    }}"""
    proto = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text), data_prop=True)
    return ir.serde.deserialize_model(proto)


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in ir.traversal.RecursiveGraphIterator(model.graph)]


def answers(model: ir.Model, inputs: Mapping[str, Any], weights: Mapping[str, Any] | None = None) -> list[list[Any]]:
    """Run a model, with either branch."""
    proto = ir.serde.serialize_model(model)
    for name, array in (weights or {}).items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return [session.run(None, {**inputs, "c": np.array(choice)}) for choice in (True, False)]


def assert_same(found: list[list[Any]], wanted: list[list[Any]]) -> None:
    for one, other in zip(found, wanted, strict=True):
        for left, right in zip(one, other, strict=True):
            np.testing.assert_array_equal(left, right)
            assert left.dtype == right.dtype


def test_shapes_of_reshapes_become_constant() -> None:
    body = """
        {p}s = Shape(x)
        {p}zero = Constant<value = int64[1] {{0}}>()
        {p}b = Gather({p}s, {p}zero)
        {p}last = Constant<value = int64[1] {{12}}>()
        {p}shape = Concat<axis = 0>({p}b, {p}last)
        {p}y = Reshape<allowzero = 1>(x, {p}shape)
    """
    model = branches(body)
    for value in (node.outputs[0] for node in ir.traversal.RecursiveGraphIterator(model.graph)):
        if value.name in ("y", "then_y"):
            value.shape = ir.Shape(["batch", 12])
    before = answers(model, {"x": X})
    assert StaticReshapePass()(model).modified
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.op_type == "Reshape":
            shape = ir.convenience.get_const_tensor(node.inputs[1])
            assert shape is not None
            assert shape.numpy().tolist() == [0, 12]
            assert "allowzero" not in node.attributes
    assert operators(model).count("Reshape") == 2
    assert_same(answers(model, {"x": X}), before)


def test_a_reshape_of_two_unknown_sizes_stays() -> None:
    model = branches("{p}y = Reshape(x, s)", "float[n] x, int64[2] s")
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.op_type == "Reshape":
            node.outputs[0].shape = ir.Shape(["a", "b"])
    assert not StaticReshapePass()(model).modified
    assert "Constant" not in operators(model)


@pytest.mark.parametrize(("target", "operator"), [("float16", "Cast"), ("float", "Identity")])
def test_cast_likes_to_a_known_type_are_replaced(target: str, operator: str) -> None:
    model = branches("{p}y = CastLike(x, like)", f"float[batch, 3, 4] x, {target}[1] like")
    inputs = {"x": X, "like": np.zeros(1, np.float16 if target == "float16" else np.float32)}
    before = answers(model, inputs)
    assert ReplaceCastLikePass()(model).modified
    assert "CastLike" not in operators(model)
    assert operators(model).count(operator) == (2 if operator == "Cast" else 3)
    assert_same(answers(model, inputs), before)
    assert not ReplaceCastLikePass()(model).modified


def test_a_cast_like_to_an_unknown_type_stays() -> None:
    model = branches("{p}y = CastLike(x, like)", "float[batch, 3, 4] x, float16[1] like")
    model.graph.inputs[2].type = None
    assert not ReplaceCastLikePass()(model).modified
    assert operators(model).count("CastLike") == 2


def _with_weight(model: ir.Model, shape: tuple[int, ...]) -> ir.Model:
    """Make the input `w` a weight without data."""
    weight = next(value for value in model.graph.inputs if value.name == "w")
    model.graph.inputs.remove(weight)
    weight.shape = ir.Shape(shape)
    model.graph.initializers["w"] = weight
    return model


def _as_input(model: ir.Model) -> ir.Model:
    """Make weights inputs: without data they could not be run."""
    for weight in list(model.graph.initializers.values()):
        del model.graph.initializers[weight.name]
        model.graph.inputs.append(weight)
    return model


def test_weights_that_are_only_used_transposed_are_stored_transposed() -> None:
    weight = np.arange(20, dtype=np.float32).reshape(5, 4)
    body = "{p}t = Transpose<perm = [1, 0]>(w) {p}y = MatMul(x, {p}t)"
    before = answers(branches(body, "float[batch, 3, 4] x, float[5, 4] w"), {"x": X, "w": weight})
    model = _with_weight(branches(body, "float[batch, 3, 4] x, float[5, 4] w"), (5, 4))
    assert TransposeWeightsPass()(model).modified
    assert "Transpose" not in operators(model)
    turned = model.graph.initializers["w"]
    assert turned.meta[TRANSPOSED]
    assert tuple(turned.shape or ()) == (4, 5)
    assert_same(answers(_as_input(model), {"x": X, "w": weight.T.copy()}), before)


@pytest.mark.parametrize(
    "body",
    [
        "{p}t = Transpose<perm = [1, 0]>(w) {p}a = MatMul(x, {p}t) {p}b = ReduceSum(w) {p}y = Add({p}a, {p}b)",
        "{p}t = Transpose<perm = [0, 1]>(w) {p}u = Transpose<perm = [1, 0]>({p}t) {p}y = MatMul(x, {p}u)",
        "{p}y = Transpose<perm = [1, 0]>(w)",
    ],
    ids=["also used as it is", "not turned", "an output"],
)
def test_other_weights_stay(body: str) -> None:
    model = _with_weight(branches(body, "float[batch, 3, 4] x, float[5, 4] w"), (5, 4))
    assert not TransposeWeightsPass()(model).modified
    assert tuple(model.graph.initializers["w"].shape or ()) == (5, 4)


def test_what_depends_on_sizes_alone_is_folded() -> None:
    body = """
        {p}s = Shape(x)
        {p}one = Constant<value = int64[1] {{1}}>()
        {p}n = Gather({p}s, {p}one)
        {p}f = Cast<to = 1>({p}n)
        {p}y = Mul(x, {p}f)
    """
    model = branches(body, "float[2, 3, 4] x")
    before = answers(model, {"x": X})
    assert FoldSizesPass()(model).modified
    assert not {"Shape", "Gather", "Cast"} & set(operators(model))
    assert not model.graph.initializers
    assert not any(graph.initializers for graph in model.graph.subgraphs())
    assert_same(answers(model, {"x": X}), before)


def test_inputs_outputs_and_axes_get_their_names() -> None:
    model = branches("{p}m = Neg(x) {p}y = Neg({p}m)", "float[a, 3, n] x")
    before = answers(model, {"x": X})
    config: Any = SimpleNamespace(
        inputs=(
            TensorSpec("c", (), "bool", "cache_branch"),
            TensorSpec("hidden", ("batch", 3, "sequence"), "float", "signal"),
        ),
        outputs=(TensorSpec("first", ("batch", 3), "float", "output"), TensorSpec("second", (), "float", "output")),
    )
    NameAxesPass(config)(model)
    made = ir.serde.serialize_model(model)
    assert [value.name for value in made.graph.input] == ["c", "hidden"]
    assert [dim.dim_param or dim.dim_value for dim in made.graph.input[1].type.tensor_type.shape.dim] == [
        *("batch", 3, "sequence")
    ]
    assert [value.name for value in made.graph.output] == ["first", "second"]
    assert [dim.dim_param or dim.dim_value for dim in made.graph.output[0].type.tensor_type.shape.dim] == [
        *("batch", 3, "first_2")
    ]
    assert not any(value.type.tensor_type.HasField("shape") for value in made.graph.value_info)
    assert_same(answers(model, {"hidden": X}), before)


def test_notes_are_removed() -> None:
    model = branches("{p}y = Neg(x)")
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        node.metadata_props["pkg.torch.onnx.stack_trace"] = "/home/someone/model.py"
    for graph in (model.graph, *model.graph.subgraphs()):
        graph.metadata_props["note"] = "/home/someone"
        graph.outputs[0].metadata_props["note"] = "/home/someone"
    assert ClearNotesPass()(model).modified
    assert b"someone" not in ir.serde.serialize_model(model).SerializeToString()
    assert not ClearNotesPass()(model).modified
