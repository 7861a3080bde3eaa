"""Escape text for the log of Actions, and list the forms in which a secret may be printed. Standard library only."""

from __future__ import annotations

import re

__all__ = ["escape_data", "escape_property", "harmless", "spellings"]


def escape_data(text: str) -> str:
    """Escape the text after the second `::` of a workflow command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def escape_property(text: str) -> str:
    """Escape the value of a property of a workflow command."""
    return escape_data(text).replace(":", "%3A").replace(",", "%2C")


def harmless(text: str) -> str:
    """Disable workflow commands in a text: `::` at the start of a line, and `##[` anywhere."""
    return re.sub(r"(?m)^([^\w\n]*?)::", r"\1: :", text).replace("##[", "## [")


def spellings(secret: str) -> set[str]:
    """Return all forms of a secret: plain, quoted by Python and JSON, URL-encoded, and each of these quoted again."""
    import json
    from urllib.parse import quote

    found = {secret}
    for _ in range(2):
        for text in tuple(found):
            # Python escapes an apostrophe only if the text around the secret has a quotation mark.
            found |= {repr(text)[1:-1], repr(f'"{text}')[2:-1], quote(text, safe=""), quote(text)}
            found |= {json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
    return found
