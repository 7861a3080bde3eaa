"""Private parts of onnxscript that lowering replaces."""

from __future__ import annotations

from typing import Final

from hfexport._internal.upstream.checked import Part, check

__all__ = ["PARTS", "values"]

PARTS: Final = (
    Part("onnxscript.values", "TracedOnnxFunction.function_ir", "replaced, to list translations without parsing them"),
)

check("onnxscript", *PARTS)

from onnxscript import values  # noqa: E402
