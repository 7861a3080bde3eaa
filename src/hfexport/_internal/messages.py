"""Base of the jobs that child processes read and the answers that they write; both are checked when they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from hfexport.errors import InternalError

__all__ = ["Answer", "Message", "plain", "read"]


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of jobs and of their parts. Folders and paths are absolute."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Base of answers.

    Attributes:
        wall_s: seconds since the process was started.
        peak_rss_bytes: its largest resident set; 0 if the system does not report it.
    """

    wall_s: float = 0.0
    peak_rss_bytes: int = 0


_T = TypeVar("_T", bound=msgspec.Struct)


def plain(message: msgspec.Struct) -> dict[str, Any]:
    """Convert a message to JSON values."""
    values: dict[str, Any] = msgspec.to_builtins(message, enc_hook=_base_value)
    return values


def _base_value(value: object) -> object:
    """Convert a value of a subclass, such as torch's version, to its base class, as `json` does; a mapping to a dict."""
    if isinstance(value, Mapping):
        return dict(value)
    for base in (str, int, float):
        if isinstance(value, base):
            return base(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")


def read(values: Mapping[str, Any], kind: type[_T]) -> _T:
    """Convert JSON values to a message.

    Raises:
        InternalError: a field is missing, unknown or of another type.
    """
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise InternalError(f"{kind.__name__}: {error}") from error
