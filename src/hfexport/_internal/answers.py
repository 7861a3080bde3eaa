"""Convert errors of a child process to JSON values, and back in its parent. Standard library only."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any

from hfexport import errors
from hfexport._internal.blame import explain
from hfexport.errors import HfexportError, InputsError, InternalError, first_line

__all__ = ["answer_to", "answer_to_any", "error_from"]


class Behind(Exception):
    """The cause of an error in a child process, as the text of its traceback."""


def answer_to(error: HfexportError) -> dict[str, Any]:
    """Return the answer of a child that raised `error`."""
    return {
        "status": "error",
        "class": type(error).__name__,
        "message": error.message,
        "remedy": error.remedy,
        "failed_by": error.failed_by,
        "problems": list(getattr(error, "problems", ())),
        "behind": "" if error.__cause__ is None else "".join(traceback.format_exception(error.__cause__)),
    }


def answer_to_any(error: Exception, *, limited: bool) -> dict[str, Any]:
    """Return the answer of a child that raised any exception other than `HfexportError`.

    Args:
        error: exception that was raised.
        limited: whether the child had a memory limit, which an allocation failure then points to.
    """
    if limited and (isinstance(error, MemoryError) or "allocate memory" in str(error)):
        return {"status": "memory", "message": first_line(error)}
    found = explain(error, "the checkpoint")
    if isinstance(found, InternalError):
        return {"status": "bug", "message": found.message, "details": found.details}
    return answer_to(found)


def error_from(answer: Mapping[str, Any], name: str) -> HfexportError:
    """Return the error that an answer describes; `name` is the child's name, for bugs."""
    if answer["status"] == "bug":
        return InternalError(f"{name}: {answer['message']}", details=answer["details"])
    kind = getattr(errors, str(answer["class"]), HfexportError)
    error: HfexportError
    if kind is InputsError:
        error = InputsError(tuple(answer["problems"]))
    else:
        error = kind(answer["message"], remedy=answer["remedy"])
    error.failed_by = answer.get("failed_by", "")
    if answer.get("behind"):
        error.__cause__ = Behind(answer["behind"])
    return error
