"""Problems of inputs that contradict or need each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hfexport.backends.onnx.variants.names import FORMAT
from hfexport.run.inputs.fields import Inputs

__all__ = ["variant_problems"]


def variant_problems(values: Mapping[str, Any], sources: Mapping[str, str]) -> list[str]:
    """Return problems of variants without ONNX, and of options for variants without any."""
    problems = []
    formats = values.get("formats", Inputs().formats)
    if values.get("variants") and formats is not None and FORMAT not in formats:
        problems.append(f"{sources['variants']} means nothing without format onnx: add it to {sources['formats']}")
    if "variants" not in values:
        problems += [
            f"{sources[name]} means nothing without variants: say which to make"
            for name in ("eval_data", "min_similarity")
            if values.get(name) is not None
        ]
    return problems
