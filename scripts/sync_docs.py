"""Write docs/manifest-fields.md and the titles in docs/exit-codes.md from the code; with --check, fail if they differ.

.venv/bin/python scripts/sync_docs.py [--check]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from hfexport.errors import HfexportError
from hfexport.manifest.schema import schema

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
FIELDS: Final = DOCS / "manifest-fields.md"
EXIT_CODES: Final = DOCS / "exit-codes.md"

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


def exit_codes(text: str) -> str:
    """Return the page of exit codes with the table of titles between its markers written anew."""
    start, end = "<!-- titles:start -->\n", "<!-- titles:end -->"
    before, _, rest = text.partition(start)
    titles = sorted({(kind.exit_code, kind.title) for kind in _with_subclasses(HfexportError)})
    rows = [f"| {title} | {code} |" for code, title in titles]
    return "\n".join(
        [before + start + "| title of the message | exit code |", "|---|---|", *rows, end + rest.partition(end)[2]]
    )


def _with_subclasses(kind: type[HfexportError]) -> Iterator[type[HfexportError]]:
    yield kind
    for further in kind.__subclasses__():
        yield from _with_subclasses(further)


def main(arguments: list[str]) -> int:
    """Write or check the pages; return the exit code."""
    texts = {FIELDS: manifest_fields(), EXIT_CODES: exit_codes(EXIT_CODES.read_text(encoding="utf-8"))}
    stale = []
    for page, text in texts.items():
        if "--check" not in arguments:
            page.write_text(text, encoding="utf-8")
        elif not page.is_file() or page.read_text(encoding="utf-8") != text:
            stale.append(page.name)
    if stale:
        print(f"{', '.join(stale)}: differs from the code: run scripts/sync_docs.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
