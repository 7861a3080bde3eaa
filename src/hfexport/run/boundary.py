"""Boundary of a run: record any exception raised inside it in the output folder and the manifest."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

from hfexport._internal.blame import explain
from hfexport._internal.room import is_no_room
from hfexport.errors import ExportError, HfexportError, InternalError, ValidationError, first_line
from hfexport.run.output_folder import withdraw, without_staging
from hfexport.run.report import write_report

if TYPE_CHECKING:
    from hfexport.manifest.entries import Manifest

__all__ = ["Boundary", "Failed"]

_FOLDER_GONE: Final = (errno.ENOENT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ESTALE, errno.EIO)


class Failed(Exception):
    """A run that failed: the error for the user, and the manifest up to the failure."""

    def __init__(self, error: HfexportError, manifest: Manifest) -> None:
        super().__init__(str(error))
        self.error = error
        self.manifest = manifest


@dataclass(frozen=True)
class Boundary:
    """Context manager that raises only `Failed` and KeyboardInterrupt.

    On failure, the earlier export is removed from the output folder and a manifest with the error is written there. A
    bug also leaves a report file.

    Attributes:
        model: model as the user named it, for messages.
        output: the output folder.
        manifest: manifest of the run; `verdict` and `error` are set on failure.
        masked: returns a text without secrets.
        made: the output folder holds this run's export, which stays.
    """

    model: str
    output: Path
    manifest: Manifest
    masked: Callable[[str], str]
    made: bool = False
    _folder: int = field(default=-1, init=False)

    def __enter__(self) -> None:
        # An open folder keeps its inode number, so a new folder at the same path has another one.
        with suppress(OSError):
            object.__setattr__(self, "_folder", os.open(self.output, os.O_RDONLY | os.O_DIRECTORY))

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._handle(raised)
        finally:
            if self._folder >= 0:
                os.close(self._folder)

    def _handle(self, raised: BaseException | None) -> None:
        if raised is None or isinstance(raised, GeneratorExit | Failed):
            return
        if isinstance(raised, KeyboardInterrupt):
            self._record(HfexportError("interrupted", remedy="Run it again."))
            return
        error = self._explained(raised)
        self._record(error)
        raise Failed(error, self.manifest) from (raised.__cause__ if raised is error else raised)

    def failed(self, error: HfexportError) -> Failed:
        """Return the exception for an error before the run owns the output folder, which stays unchanged."""
        self._describe(error)
        return Failed(error, self.manifest)

    def _explained(self, raised: BaseException) -> HfexportError:
        if not self._is_there():
            _remove_remnants(self.output)
            return ExportError(
                f"output {str(self.output)!r} was removed while hfexport wrote into it",
                remedy="Choose a folder that nothing else changes meanwhile.",
            )
        if isinstance(raised, OSError) and not is_no_room(raised) and raised.errno in _FOLDER_GONE:
            places = [Path(str(name)) for name in (raised.filename, raised.filename2) if name is not None]
            if any(self.output.absolute() in (place.absolute(), *place.absolute().parents) for place in places):
                return ExportError(
                    f"output {str(self.output)!r} cannot be written: {raised.strerror}",
                    remedy="Choose a folder that can be written to and that nothing else changes meanwhile.",
                )
        return explain(raised, self.model)

    def _is_there(self) -> bool:
        """Return whether the path still is the output folder that the run began with, and not another file or folder."""
        try:
            return self.output.is_dir() and (
                self._folder < 0 or os.path.samestat(os.fstat(self._folder), self.output.stat())
            )
        except OSError:
            return False

    def _record(self, error: HfexportError) -> None:
        """Remove the earlier export, and record the failure."""
        from hfexport.manifest.entries import write_manifest

        try:
            if not self.made:
                withdraw(self.output)
        except OSError as problem:
            error.remedy += f" The earlier export in {str(self.output)!r} could not be removed ({first_line(problem)}): do not use it."
        error.message = without_staging(error.message, self.output, self.model)
        error.remedy = without_staging(error.remedy, self.output, self.model)
        if isinstance(error, InternalError):
            self._report(error)
        self._describe(error)
        try:
            write_manifest(self.manifest, self.output)
        except OSError as problem:
            error.remedy += f" No manifest could be written ({problem.strerror or first_line(problem)})."
            error.remedy = error.remedy.strip()

    def _describe(self, error: HfexportError) -> None:
        """Set the error in the manifest."""
        from hfexport.manifest.entries import error_entry

        if not self.made:
            self.manifest["verdict"] = "failed" if isinstance(error, ValidationError) else "error"
        entry = error_entry(error)
        entry["message"], entry["remedy"] = self.masked(entry["message"]), self.masked(entry["remedy"])
        self.manifest["error"] = entry

    def _report(self, error: InternalError) -> None:
        path = write_report(error, self.manifest, self.output, self.masked)
        how = "" if path is None else f" with the file {path}, which holds no secrets"
        error.remedy = f"{error.remedy} Please report it{how}."


def _remove_remnants(output: Path) -> None:
    """Remove parts of a removed output folder that a child process created again."""
    for staging in output.glob(".hfexport-*"):
        shutil.rmtree(staging, ignore_errors=True)
    with suppress(OSError):
        output.rmdir()
