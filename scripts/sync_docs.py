"""Write docs/manifest-fields.md from the manifest's schema; with --check, fail if it differs.

.venv/bin/python scripts/sync_docs.py [--check]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

from hfexport.manifest.schema import schema

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "manifest-fields.md"

HEAD: Final = """\
# Fields of the manifest

<!-- Written by scripts/sync_docs.py from src/hfexport/manifest/model.py. -->

Every field of `hfexport.json`, from its [JSON schema](https://json-schema.org/). [The manifest](manifest.md) explains the important
ones. A field in *italics* may be absent.
"""


def manifest_fields() -> str:
    """Return the page: a heading and a table for each type of the schema."""
    described = schema()
    root = {"title": "Manifest", "description": described.get("description", ""), **described}
    kinds = {"Manifest": root, **described["$defs"]}
    parts = [_section(name, kind) for name, kind in kinds.items() if "properties" in kind]
    return HEAD + "".join(parts)


def _section(name: str, kind: dict[str, Any]) -> str:
    lines = ["", f"## {_words(name)}", ""]
    if text := kind.get("description"):
        lines += [" ".join(text.split()), ""]
    lines += ["| field | type | meaning |", "|---|---|---|"]
    for field, value in kind["properties"].items():
        shown = f"`{field}`" if field in kind.get("required", ()) else f"*`{field}`*"
        lines.append(f"| {shown} | {_type(value)} | {value.get('description', '')} |")
    return "\n".join(lines) + "\n"


def _type(value: dict[str, Any]) -> str:
    """Describe the type of a field, with a link to the table of its entries."""
    if "$ref" in value:
        name = _words(value["$ref"].rpartition("/")[2])
        return f"[{name}](#{name.lower().replace(' ', '-')})"
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(_type(part) for part in value["anyOf"]))
    if constants := value.get("enum", [value["const"]] if "const" in value else []):
        return " or ".join(f"`{part}`" for part in constants)
    return _plain_type(value)


def _plain_type(value: dict[str, Any]) -> str:
    kind = value.get("type", "any JSON value")
    if kind == "array":
        return f"list of {_type(value.get('items', {}))}"
    if kind == "object" and isinstance(entries := value.get("additionalProperties"), dict):
        return f"object of {_type(entries)}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _words(name: str) -> str:
    """Return the name of a type as words: `ProbeEntry` is `Probe`."""
    short = name.removesuffix("Entry")
    return "".join(f" {char.lower()}" if char.isupper() and index else char for index, char in enumerate(short))


def main(arguments: list[str]) -> int:
    """Write or check the page; return the exit code."""
    text = manifest_fields()
    if "--check" not in arguments:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        print(f"{PAGE.name}: differs from the schema: run scripts/sync_docs.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
