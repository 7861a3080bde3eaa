"""Problems of inputs that contradict or need each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hfexport.backends.variants import VARIANTS
from hfexport.run.inputs.fields import Inputs

__all__ = ["variant_problems"]


def variant_problems(values: Mapping[str, Any], sources: Mapping[str, str]) -> list[str]:
    """Return problems of variants without their format, and of options for variants without any."""
    problems = []
    formats = values.get("formats", Inputs().formats)
    asked = [VARIANTS[name] for name in values.get("variants") or ()]
    for needed in dict.fromkeys(variant.format for variant in asked):
        if formats is not None and needed not in formats:
            names = ", ".join(variant.name for variant in asked if variant.format == needed)
            problems.append(
                f"{sources['variants']} asks for {names}, which means nothing without format {needed}: add it to"
                f" {sources['formats']}"
            )
    if "variants" not in values:
        problems += [
            f"{sources[name]} means nothing without variants: say which to make"
            for name in ("eval_data", "min_similarity")
            if values.get(name) is not None
        ]
    return problems
