"""Divide the graphs of an encoder-decoder as ONNX Runtime GenAI runs them.

The exported encoder returns states, and the first call of the decoder computes keys and values of cross-attention from
them. GenAI takes these keys and values from the encoder, and calls one decoder with them, with an empty cache at first
(`WhisperState` in https://github.com/microsoft/onnxruntime-genai/blob/main/src/models/whisper.cpp).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import onnx
from onnx import helper

from hfexport.backends.onnx.variants.graph import graphs_of

__all__ = ["write_decoder", "write_encoder"]

_PREFIX: Final = "cross_attention."


def write_encoder(encoder: Path, decoder: Path, target: Path) -> Path:
    """Write an encoder that also returns the keys and values of cross-attention. External data stays in its files.

    Args:
        encoder: graph that returns `last_hidden_state`.
        decoder: graph with two branches, of which the first computes `present.N.encoder.*` from `encoder_hidden_states`.
        target: path of the new graph, in the folder of both.

    Returns:
        `target`.
    """
    model = onnx.load(encoder, load_external_data=False)
    cross = _branch(decoder, "else_branch")
    outputs = [value for value in cross.graph.output if ".encoder." in value.name]
    _keep(cross.graph, [value.name for value in outputs])
    known = {"encoder_hidden_states": model.graph.output[0].name, **{value.name: value.name for value in outputs}}
    _rename(cross.graph, known)
    model.graph.node.extend(cross.graph.node)
    model.graph.initializer.extend(cross.graph.initializer)
    model.graph.output.extend(outputs)
    domains = {opset.domain for opset in model.opset_import}
    model.opset_import.extend(opset for opset in cross.opset_import if opset.domain not in domains)
    target.write_bytes(model.SerializeToString(deterministic=True))
    return target


def write_decoder(decoder: Path, target: Path) -> Path:
    """Write the branch of a decoder that takes keys and values of cross-attention. External data stays in its files.

    Args:
        decoder: graph with two branches.
        target: path of the new graph, in the folder of `decoder`.

    Returns:
        `target`.
    """
    model = _branch(decoder, "then_branch")
    _keep(model.graph, [value.name for value in model.graph.output if ".encoder." not in value.name])
    target.write_bytes(model.SerializeToString(deterministic=True))
    return target


def _branch(path: Path, branch: str) -> onnx.ModelProto:
    """Load a graph with two branches, and replace their `If` by the nodes of one of them."""
    model = onnx.load(path, load_external_data=False)
    nodes = []
    for node in model.graph.node:
        chosen = [attribute.g for attribute in node.attribute if attribute.name == branch]
        if node.op_type != "If" or not chosen:
            nodes.append(node)
            continue
        (inner,) = chosen
        _set_apart(inner)
        nodes.extend(inner.node)
        model.graph.initializer.extend(inner.initializer)
        pairs = zip(inner.output, node.output, strict=True)
        nodes += [helper.make_node("Identity", [value.name], [name]) for value, name in pairs if value.name != name]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    model.graph.ClearField("node")
    model.graph.node.extend(copies)
    model.graph.ClearField("value_info")
    return model


def _set_apart(branch: onnx.GraphProto) -> None:
    """Rename the values that a branch computes: around it, others may have the same names."""
    made = {name for node in branch.node for name in node.output} | {tensor.name for tensor in branch.initializer}
    for part in graphs_of(branch):
        for node in part.node:
            for names in (node.input, node.output):
                names[:] = [f"branch.{name}" if name in made else name for name in names]
    for value in (*branch.initializer, *branch.output):
        value.name = f"branch.{value.name}" if value.name in made else value.name


def _keep(graph: onnx.GraphProto, names: Sequence[str]) -> None:
    """Keep these outputs, and the nodes, inputs and initializers that they depend on."""
    needed = set(names)
    kept = []
    for node in reversed(graph.node):
        if needed.isdisjoint(node.output):
            continue
        kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
        needed |= _read_by(node)
    graph.ClearField("node")
    graph.node.extend(reversed(kept))
    for values in (graph.input, graph.initializer):
        for index in reversed(range(len(values))):
            if values[index].name not in needed:
                del values[index]
    outputs = {value.name: value for value in graph.output}
    chosen = [onnx.ValueInfoProto.FromString(outputs[name].SerializeToString()) for name in names]
    graph.ClearField("output")
    graph.output.extend(chosen)


def _read_by(node: onnx.NodeProto) -> set[str]:
    """Return the names that a node and the graphs in it read."""
    inner = (attribute.g for attribute in node.attribute if attribute.HasField("g"))
    return set(node.input) | {name for graph in inner for part in graph.node for name in _read_by(part)}


def _rename(graph: onnx.GraphProto, known: dict[str, str]) -> None:
    """Rename all values and nodes, so that they differ from those of another graph; `known` names the others."""

    def renamed(names: Iterable[str]) -> list[str]:
        return [known.get(name, f"{_PREFIX}{name}") if name else "" for name in names]

    for part in graphs_of(graph):
        for node in part.node:
            node.input[:], node.output[:] = renamed(node.input), renamed(node.output)
            node.name = f"{_PREFIX}{node.name}" if node.name else ""
        for tensor in part.initializer:
            (tensor.name,) = renamed([tensor.name])
