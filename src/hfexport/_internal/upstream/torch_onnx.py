"""Private parts of `torch.onnx` that lowering uses and replaces."""

from __future__ import annotations

from typing import Final

from hfexport._internal.upstream.checked import Part, check

__all__ = ["PARTS", "OpOverload", "exporter_core", "fx_passes", "set_graph_module", "type_promotion"]

_CORE = "torch.onnx._internal.exporter._core"
_PASSES = "torch.onnx._internal.exporter._fx_passes"
_PROMOTION = "torch.onnx._internal.fx.passes.type_promotion"

PARTS: Final = (
    Part(
        _CORE,
        "_prepare_exported_program_for_export",
        "replaced, to lower without decomposing: https://github.com/pytorch/pytorch/issues/150523",
        ("exported_program", "registry"),
    ),
    Part(_PASSES, "insert_type_promotion_nodes", "a step of the preparation that is replaced", ("graph_module",)),
    Part(_PASSES, "remove_assertion_nodes", "a step of the preparation that is replaced", ("graph_module",)),
    Part(
        _PROMOTION,
        "_TypePromotionInterpreter",
        "replaced, to promote types without running the model once more",
        ("module", "type_promotion_table"),
    ),
    Part(
        _PROMOTION,
        "_TypePromotionInterpreter._maybe_promote_node",
        "called by the replacement",
        ("self", "node", "rule"),
    ),
    Part(_PROMOTION, "_TypePromotionInterpreter._set_current_node", "called by the replacement", ("self", "node")),
    Part("torch._ops", "OpOverload", "class of operators, to distinguish them from Python functions"),
    Part("torch.export", "ExportedProgram.graph_module", "stored in `_graph_module`, which a pass replaces"),
    Part(_PROMOTION, "get_type_promotion_rule", "called by the replacement", ("node", "type_promotion_table")),
)

check("torch", *PARTS)

import torch  # noqa: E402
from torch._ops import OpOverload  # noqa: E402
from torch.onnx._internal.exporter import _core as exporter_core  # noqa: E402
from torch.onnx._internal.exporter import _fx_passes as fx_passes  # noqa: E402
from torch.onnx._internal.fx.passes import type_promotion  # noqa: E402


def set_graph_module(program: torch.export.ExportedProgram, module: torch.fx.GraphModule) -> None:
    """Set the graph of a captured program, whose public property is read-only."""
    assert program._graph_module is program.graph_module
    program._graph_module = module
