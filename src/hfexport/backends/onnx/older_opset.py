"""Rewrite a graph of opset 18 for opset 17, which older runtimes take.

Opset 18 is the lowest that `torch.onnx` writes. Most of its operators are those of opset 17. Some only gained an input
or an attribute, and are written as before; the others have no counterpart, and the graph is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import onnx
import onnx_ir as ir
from onnx_ir.traversal import RecursiveGraphIterator

from hfexport.errors import ExportError

__all__ = ["LOWEST_WRITTEN", "to_older_opset"]

LOWEST_WRITTEN: Final = 18
"""Lowest opset that `torch.onnx` writes."""


def to_older_opset(model: ir.Model, opset: int) -> None:
    """Rewrite `model`, a graph of opset 18, in place for a lower opset.

    Args:
        model: graph of opset 18.
        opset: 17; for 18 and higher nothing is changed.

    Raises:
        ExportError: the graph has operators that the opset lacks; they are named.
    """
    if opset >= LOWEST_WRITTEN:
        return
    missing: set[str] = set()
    for node in RecursiveGraphIterator(model.graph):
        if node.domain or onnx.defs.get_schema(node.op_type, LOWEST_WRITTEN).since_version <= opset:
            continue
        rewrite = _REWRITES.get(node.op_type)
        if rewrite is None or not rewrite(node):
            missing.add(node.op_type)
    if missing:
        raise ExportError(
            f"ONNX: opset {opset} cannot express {', '.join(sorted(missing))}, which this model's graph needs",
            remedy=f"Use --opset {LOWEST_WRITTEN} or higher.",
        )
    model.graph.opset_imports[""] = opset


def _reduce(node: ir.Node) -> bool:
    """Give a reduction its axes as an attribute instead of an input."""
    axes = node.inputs[1] if len(node.inputs) > 1 else None
    noop = node.attributes.pop("noop_with_empty_axes", None)
    if axes is None:
        return noop is None or noop.as_int() == 0
    values = _known_integers(axes)
    if values is None or (not values and noop is not None and noop.as_int() == 1):
        return False
    node.resize_inputs(1)
    if values:
        node.attributes["axes"] = ir.AttrInt64s("axes", values)
    return True


def _known_integers(value: ir.Value) -> list[int] | None:
    """Return the elements of a constant, also behind operators that only change its shape; `None` if it is none."""
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is not None:
        return [int(element) for element in tensor.numpy().reshape(-1)]
    node = value.producer()
    if node is None or node.op_type not in ("Reshape", "Unsqueeze", "Identity") or node.inputs[0] is None:
        return None
    return _known_integers(node.inputs[0])


def _split(node: ir.Node) -> bool:
    """Drop the number of parts; without sizes, parts are equal, which opset 17 does by the number of outputs."""
    number = node.attributes.pop("num_outputs", None)
    source, given = node.inputs[0], len(node.inputs) > 1 and node.inputs[1] is not None
    if number is None or given or source is None or source.shape is None:
        return given
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    size = source.shape[axis]
    return isinstance(size, int) and size % number.as_int() == 0


def _pad(node: ir.Node) -> bool:
    """Accept a padding of all axes; opset 17 cannot pad chosen axes."""
    return len(node.inputs) < 4 or node.inputs[3] is None


def _scatter(node: ir.Node) -> bool:
    """Accept the reductions of opset 16."""
    reduction = node.attributes.get("reduction")
    return reduction is None or reduction.as_string() in ("none", "add", "mul")


def _resize(node: ir.Node) -> bool:
    """Drop attributes that opset 18 added, if they have their defaults."""
    for name, default in (("antialias", 0), ("keep_aspect_ratio_policy", "stretch")):
        attribute = node.attributes.pop(name, None)
        if attribute is not None and attribute.value != default:
            return False
    return "axes" not in node.attributes


_REDUCTIONS = (
    *("ReduceMax", "ReduceMin", "ReduceMean", "ReduceProd", "ReduceL1", "ReduceL2"),
    *("ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"),
)

_REWRITES: Final[Mapping[str, Callable[[ir.Node], bool]]] = MappingProxyType(
    {
        **dict.fromkeys(_REDUCTIONS, _reduce),
        "Split": _split,
        "Pad": _pad,
        "ScatterElements": _scatter,
        "ScatterND": _scatter,
        "Resize": _resize,
    }
)
"""Rewrites by operator: each returns whether the node is now one of opset 17."""
