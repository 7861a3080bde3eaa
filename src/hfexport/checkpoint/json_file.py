"""Read JSON objects from untrusted files, strictly and with a size limit."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from hfexport.checkpoint.lfs import refuse_pointer
from hfexport.errors import CheckpointError

__all__ = ["read_bounded", "read_json", "read_json_bytes"]

MAX_BYTES: Final = 2**24
"""Size limit, far above that of config.json and index files of real checkpoints."""


def read_bounded(path: Path) -> bytes:
    """Return the content of a small file.

    Raises:
        CheckpointError: the file is missing or too large.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}", remedy="Restore the file.") from error
    if len(content) > MAX_BYTES:
        raise CheckpointError(f"{path}: has more than {MAX_BYTES} bytes, the limit for such a file")
    return content


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Duplicate keys, NaN and Infinity are rejected, since parsers disagree on them.

    Raises:
        CheckpointError: the file is missing, too large, or not such a JSON object; the message names the file.
    """
    content = read_bounded(path)
    refuse_pointer(path, content[:64])
    return read_json_bytes(content, str(path))


def read_json_bytes(content: bytes, name: str) -> dict[str, Any]:
    """Parse `content` by the same rules; `name` is for messages."""
    try:
        value = json.loads(content, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{name}: is not valid JSON: {error}", remedy="Correct or restore the file.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{name}: holds no JSON object", remedy="Correct or restore the file.")
    return value


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        key, count = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"key {key!r} occurs {count} times")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")
