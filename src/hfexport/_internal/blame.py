"""Convert any exception to an error for the user, by the code that raised it. Standard library only."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType
from typing import Final

from hfexport._internal.room import is_no_room, no_room
from hfexport.errors import CheckpointError, ExportError, HfexportError, InputsError, InternalError, first_line

__all__ = ["USER_MODULE_PREFIX", "explain", "no_memory"]

USER_MODULE_PREFIX: Final = "hfexport_own_"
"""Prefix of the module names of users' own files."""

_REMOTE_MODULES: Final = "transformers_modules"
"""Package in which transformers runs code from a checkpoint."""

_MODEL_CODE: Final = ("transformers.models.", "transformers.configuration_utils", "transformers.modeling_rope_utils")
"""Modules of transformers that compute with the values of config.json."""

_CONFIG_READERS: Final = "hfexport.export_config."
"""Modules of hfexport that compute with the values of config.json."""


def explain(error: BaseException, subject: str) -> HfexportError:
    """Return the error to show to the user for any exception.

    Args:
        error: exception that was raised.
        subject: name of the checkpoint as the user gave it, for messages.

    Returns:
        `error` itself if it is an `HfexportError`; `ExportError` if disk or memory ran out; `InputsError` if a user's
        file raised it; `CheckpointError` if code that computes with config.json did; else `InternalError`.
    """
    if isinstance(error, HfexportError):
        return error
    if isinstance(error, OSError) and is_no_room(error):
        return no_room(Path(str(error.filename or ".")))
    if isinstance(error, MemoryError) or "allocate memory" in first_line(error):
        return no_memory(first_line(error))
    return _by_frames(error, subject)


def _by_frames(error: BaseException, subject: str) -> HfexportError:
    """Choose the error for an exception by the modules in its traceback."""
    modules = _modules(error.__traceback__)
    text = first_line(error)
    said = text if text == type(error).__name__ else f"{type(error).__name__}: {text}"
    for name, file, line in reversed(modules):
        if name.startswith(USER_MODULE_PREFIX):
            return InputsError([f"export-config: {file}, line {line}: {said}"])
        if name.partition(".")[0] == _REMOTE_MODULES:
            return CheckpointError(
                f"{subject}: its own code fails in {Path(file).name}, line {line}: {said}",
                remedy="Correct that code, or use a revision of the checkpoint whose code works.",
            )
    ours = max((n for n, (name, _, _) in enumerate(modules) if name.split(".")[0] == "hfexport"), default=-1)
    beyond = [name for name, _, _ in modules[ours + 1 :]]
    reads_config = ours >= 0 and modules[ours][0].startswith(_CONFIG_READERS)
    if reads_config or any(name.startswith(_MODEL_CODE) for name in beyond):
        return CheckpointError(
            f"{subject}: config.json has values that contradict each other or have the wrong type: {said}",
            remedy="Use the config.json that was saved with these weights.",
        )
    where = f"{modules[ours][0]}, line {modules[ours][2]}: " if ours >= 0 else ""
    return InternalError(f"{where}{said}", details="".join(traceback.format_exception(error)))


def no_memory(said: str) -> ExportError:
    """Return the error for a machine that ran out of memory."""
    remedy = "Use a machine or container with more memory."
    return ExportError(f"memory ran out: {said}", remedy=remedy).by("machine")


def _modules(trace: TracebackType | None) -> list[tuple[str, str, int]]:
    """Return module name, file and line of each frame, the outermost first."""
    found = []
    while trace is not None:
        frame = trace.tb_frame
        found.append((str(frame.f_globals.get("__name__", "")), frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    return found
