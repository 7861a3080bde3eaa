"""Private part of `torch.onnx` with which translations of operators write ONNX nodes."""

from __future__ import annotations

from typing import Final

from hfexport._internal.upstream.checked import Part, check

__all__ = ["PARTS", "call_op"]

PARTS: Final = (
    Part(
        "torch.onnx._internal.exporter._torchlib.ops.hop",
        "call_op",
        "writes an ONNX node with attributes and subgraphs, which no public function does",
        ("op_type", "args", "_num_outputs", "_domain", "kwargs"),
    ),
)

check("torch", *PARTS)

from torch.onnx._internal.exporter._torchlib.ops.hop import call_op  # noqa: E402
