"""Derive the manifest's JSON schema from the types in `model`, and add the rules between its fields."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from hfexport.manifest.model import Manifest

__all__ = ["schema"]


def schema() -> dict[str, Any]:
    """Return the JSON schema of a manifest: the types, and the rules between its fields."""
    definitions = msgspec.json.schema(Manifest)["$defs"]
    for definition in definitions.values():
        definition["additionalProperties"] = False
    definitions["ValidationEntry"]["allOf"] = _VALIDATION_RULES
    definitions["CheckEntry"] |= _CHECK_RULE
    root = definitions.pop("Manifest")
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", **root, "title": "hfexport manifest"}
    return {**head, "allOf": _RULES, "$defs": definitions}


def _if_verdict(verdict: str, then: dict[str, Any]) -> dict[str, Any]:
    return {"if": {"properties": {"verdict": {"const": verdict}}}, "then": {"properties": then}}


def _all_artifacts(verdicts: list[str]) -> dict[str, Any]:
    validation = {"properties": {"verdict": {"enum": verdicts}}}
    return {
        "source": {"type": "object"},
        "task": {"type": "string"},
        "dtype": {"type": "string"},
        "error": {"type": "null"},
        "artifacts": {"minItems": 1, "items": {"properties": {"validation": validation}}},
    }


_RULES: Final = [
    _if_verdict("passed", _all_artifacts(["passed"])),
    _if_verdict("incomplete", _all_artifacts(["passed", "incomplete"])),
]
"""With a good verdict there is a source, no error, and at least one artifact; all artifacts have a good verdict."""

_VALIDATION_RULES: Final = [
    _if_verdict("passed", {"checks": {"items": {"properties": {"verdict": {"const": "passed"}}}}}),
    _if_verdict(
        "incomplete",
        {
            "checks": {
                "contains": {"properties": {"verdict": {"const": "not_run"}}},
                "items": {"properties": {"verdict": {"enum": ["passed", "not_run"]}}},
            }
        },
    ),
]

_CHECK_RULE: Final = {
    "if": {"properties": {"verdict": {"not": {"const": "passed"}}}},
    "then": {"properties": {"reason": {"minLength": 1}}},
}
