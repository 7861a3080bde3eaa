"""Derive the JSON schema of a fleet file from the types in `model`."""

from __future__ import annotations

from typing import Any

import msgspec

from hfexport.run.fleet.model import GROUPS, FleetFile

__all__ = ["schema"]


def schema() -> dict[str, Any]:
    """Return the JSON schema: the types, and that an entry has exactly one of `model` and the keys of groups."""
    definitions = msgspec.json.schema(FleetFile)["$defs"]
    definitions["Entry"]["oneOf"] = [{"required": [name]} for name in ("model", *GROUPS)]
    definitions["Search"]["anyOf"] = [{"required": [name]} for name in ("author", "tags", "search")]
    root = definitions.pop("FleetFile")
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", **root, "title": "hfexport fleet file"}
    return {**head, "$defs": definitions}
