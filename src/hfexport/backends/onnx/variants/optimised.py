"""Optimised variants: the same weights, with operators that ONNX Runtime computes together fused in the file.

`O1` to `O4` are made by ONNX Runtime's own optimisers with the settings of Optimum's levels
(https://huggingface.co/docs/optimum-onnx/onnxruntime/usage_guides/optimization).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import onnx

from hfexport._internal.sizes import size_text
from hfexport.errors import ExportError

__all__ = ["LARGEST_BYTES", "has_branches", "optimise"]

LARGEST_BYTES: Final = 2**31 - 2**24
"""Size above which ONNX Runtime's optimisers cannot hold a model in one message."""

_FAMILIES: Final = (
    ("gpt2", ("gpt2", "gpt_neo", "gptj", "codegen", "bloom", "llama", "qwen", "mistral", "phi")),
    ("bart", ("bart", "marian", "pegasus", "blenderbot", "mvp")),
    ("t5", ("t5",)),
    ("vit", ("vit", "deit", "beit", "swin")),
)
"""Kinds of fusions of `onnxruntime.transformers`, by a part of the model type; `bert` for all others."""


def optimise(base: Path, target: Path, level: str, model_type: str, *, branches: bool) -> None:
    """Write a graph optimised by ONNX Runtime.

    Args:
        base: file in float32, or in float16 for `O4`.
        target: new file with embedded weights.
        level: `O1` (constant folding and redundant operators), `O2` (also fusions), `O3` (also an approximate GELU), or
            `O4` (as `O3`, for float16).
        model_type: model type in config.json, which selects the fusions.
        branches: the graph has branches, in which only a session's own optimisations are applied.

    Raises:
        ExportError: the model is too large, or the optimiser fails.
    """
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    size_bytes = sum(path.stat().st_size for path in base.parent.glob(f"{base.name}*"))
    if size_bytes > LARGEST_BYTES:
        raise ExportError(
            f"variant {level}: the model has {size_text(size_bytes)}, and ONNX Runtime's optimiser takes at most 2 GB",
            remedy="Leave this variant out.",
        )
    family = next((name for name, parts in _FAMILIES if any(part in model_type for part in parts)), "bert")
    options = FusionOptions(family)
    options.enable_gelu_approximation = level in ("O3", "O4")
    # With float16, a session on CPU would add casts to float32 to the file.
    session_level = {"O1": 1, "O2": 2, "O3": 2, "O4": 0}[level]
    made: Any = optimize_model(
        str(base),
        family,
        num_heads=0,
        hidden_size=0,
        optimization_options=options,
        opt_level=session_level,
        only_onnxruntime=branches or level == "O1",
    )
    onnx.save(made.model, target)


def has_branches(path: Path) -> bool:
    """Return whether a graph has branches, as merged decoders do; fusions look at the outer graph alone."""
    model = onnx.load(path, load_external_data=False)
    return any(node.op_type == "If" for node in model.graph.node)
