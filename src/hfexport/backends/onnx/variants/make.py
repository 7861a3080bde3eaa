"""Make a variant of a graph from its plain file, reading and writing one weight at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx

from hfexport.backends.onnx.variants.blocks import MICROSOFT, BlockWeights, NormalFloatWeights
from hfexport.backends.onnx.variants.fused import fuse
from hfexport.backends.onnx.variants.graph import Derived, Opened, Stored, graphs_of, open_model
from hfexport.backends.onnx.variants.half import keep_io_types
from hfexport.backends.onnx.variants.integers import IntegerWeights
from hfexport.backends.onnx.variants.names import OnnxVariant
from hfexport.backends.onnx.variants.optimised import has_branches, optimise
from hfexport.backends.onnx.variants.rewrite import Rule, has_convolutions, rewrite
from hfexport.backends.onnx.writer import SINGLE_FILE_LIMIT_BYTES, write_model

__all__ = ["make_variant"]


def _ignore(size_bytes: int) -> None:
    del size_bytes


def make_variant(
    variant: OnnxVariant,
    base: Path,
    target: Path,
    *,
    model_type: str = "",
    external: bool = False,
    chunk_bytes: int | None = None,
    advance: Callable[[int], None] = _ignore,
) -> list[Path]:
    """Write a variant of one graph.

    Args:
        variant: variant to make.
        base: file of the same graph in the variant's base dtype.
        target: path of the new graph; external weights go to a file with this name and `_data`.
        model_type: model type in config.json, which selects fusions.
        external: write the weights to a separate file.
        chunk_bytes: largest size of such a file; see `write_model`.
        advance: called with the size of each written weight in bytes.

    Returns:
        The written files, the graph first.

    Raises:
        ExportError: the disk is full, or an optimiser fails.
    """
    made = target.with_name(f"unfinished_{target.name}")
    if variant.kind == "optimised":
        optimise(base, made, variant.name, model_type, branches=has_branches(base))
    try:
        opened, weights = _rewritten(variant, made if made.exists() else base)
        external = external or sum(weight.size_bytes for weight in weights) > SINGLE_FILE_LIMIT_BYTES
        return write_model(opened.model, weights, target, advance, external=external, chunk_bytes=chunk_bytes)
    finally:
        for path in (made, made.with_name(f"{made.name}_data")):
            path.unlink(missing_ok=True)


def _rewritten(variant: OnnxVariant, base: Path) -> tuple[Opened, list[Stored | Derived]]:
    """Return the variant's graph, and its weights in the order in which they are written."""
    opened = open_model(base)
    if variant.base == "fp16":
        keep_io_types(opened)
    if variant.kind == "fused":
        fuse(opened)
    rule = _rule(variant, opened)
    if rule is not None:
        rewrite(opened, rule)
    used = {node.domain for graph in graphs_of(opened.model.graph) for node in graph.node}
    if MICROSOFT in used:
        opened.add_domain(MICROSOFT, 1)
    opened.keep_domains(used)
    return opened, list(opened.weights.values())


def _rule(variant: OnnxVariant, opened: Opened) -> Rule | None:
    if variant.kind in ("half", "optimised", "fused"):
        return None
    if variant.kind == "integers":
        signed = not has_convolutions(opened) if variant.signed is None else variant.signed
        return IntegerWeights(opened, signed=signed)
    if variant.codes == "nf4":
        return NormalFloatWeights(opened)
    return BlockWeights(opened, _tables_in_products(opened))


def _tables_in_products(opened: Opened) -> frozenset[str]:
    """Return names of tables that are looked up and, transposed, multiplied with, as tied embeddings are."""
    looked_up, turned = set(), set()
    for graph in graphs_of(opened.model.graph):
        for node in graph.node:
            if node.op_type == "Gather":
                looked_up.add(node.input[0])
            if node.op_type == "Transpose" or (node.op_type == "Gemm" and _transposes(node)):
                turned.add(node.input[0] if node.op_type == "Transpose" else node.input[1])
    return frozenset(name for name in looked_up & turned if isinstance(opened.weights.get(name), Stored))


def _transposes(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
