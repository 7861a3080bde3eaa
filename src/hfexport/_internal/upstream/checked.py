"""Check that a library has the version that hfexport was made for, and the private parts that hfexport uses.

Standard library only.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from hfexport.errors import UpstreamError

__all__ = ["MADE_FOR", "Part", "check", "problem"]

MADE_FOR: Final[Mapping[str, str]] = {
    "torch": "2.13",
    "transformers": "5.23",
    "onnxscript": "0.7",
    "huggingface_hub": "2",
}
"""Version of each distribution whose private parts are used; other versions are outside the range in pyproject.toml."""


@dataclass(frozen=True)
class Part:
    """A private part of another library.

    Attributes:
        module: module of the part.
        name: name in the module, dotted for a member of a class.
        reason: reason why hfexport needs it.
        parameters: names of its parameters in order; `None` if hfexport does not call or replace it.
    """

    module: str
    name: str
    reason: str
    parameters: tuple[str, ...] | None = None

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


def check(library: str, *parts: Part) -> None:
    """Compare the version of a library, and its private parts, with what hfexport was made for.

    Args:
        library: a key of `MADE_FOR`.
        parts: parts that will be used.

    Raises:
        UpstreamError: names the part and the library.
    """
    wanted = MADE_FOR[library]
    try:
        found = version(library)
    except PackageNotFoundError:
        found = "none"
    release = found.partition("+")[0]
    if release != wanted and not release.startswith(f"{wanted}."):
        raise _mismatch(library, wanted, found)
    for part in parts:
        if (moved := problem(part)) is not None:
            raise _mismatch(library, wanted, f"{found}, {moved}")


def _mismatch(library: str, wanted: str, found: str) -> UpstreamError:
    return UpstreamError(
        f"this hfexport was made for {library} {wanted}, found {found}",
        remedy="Reinstall hfexport with the versions of its requirements; if they are these, report it.",
    )


def problem(part: Part) -> str | None:
    """Return how a part differs from the version that hfexport was made for; `None` if it does not."""
    try:
        owner = importlib.import_module(part.module)
    except ImportError:
        return f"in which there is no module {part.module}"
    try:
        found = reduce(getattr, part.name.split("."), owner)
    except AttributeError:
        return f"in which {part.module} has no {part.name}"
    if part.parameters is None:
        return None
    parameters = tuple(inspect.signature(found).parameters)  # type: ignore[arg-type]
    if parameters != part.parameters:
        return f"in which {part} takes ({', '.join(parameters)}) rather than ({', '.join(part.parameters)})"
    return None
