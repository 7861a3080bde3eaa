"""Error classes for the user, each with its exit code and a remedy.

All expected failures are one of these; a traceback means a bug in hfexport. Standard library only.
"""

from __future__ import annotations

from typing import ClassVar, Final, Literal, Self

__all__ = [
    "MODEL_FAILURES",
    "CheckpointError",
    "ExportError",
    "HfexportError",
    "InputsError",
    "InternalError",
    "JobError",
    "NeuronError",
    "PublishError",
    "UnsupportedError",
    "UpstreamError",
    "ValidationError",
    "first_line",
]


MODEL_FAILURES: Final = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError),
    *(NameError, RuntimeError, TypeError, ValueError),
)
"""Exceptions that the code of a model or of a user may raise; none is a failure of hfexport."""


def first_line(error: BaseException, *, limit: int = 300, named: bool = False) -> str:
    """Return the first line of an exception's text that is not blank, or the name of its class if there is none.

    Args:
        error: the exception.
        limit: largest number of characters of the line.
        named: put the name of the exception's class before the line.
    """
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  `__str__` of a foreign exception may raise
        text = ""
    lines = (line.strip() for line in text.splitlines())
    line, name = next((line for line in lines if line), "")[:limit], type(error).__name__
    return f"{name}: {line}" if named and line else line or name


class HfexportError(Exception):
    """Base class of failures that the user can act on.

    Args:
        message: the subject and the finding.
        remedy: the change to make; shown on a line of its own.

    Attributes:
        failed_by: `network` or `machine` if the same run may succeed later or on another machine; else empty.
    """

    failed_by: Literal["", "network", "machine"] = ""
    exit_code: ClassVar[int] = 1
    title: ClassVar[str] = "hfexport failed"

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def by(self, failed_by: Literal["", "network", "machine"]) -> Self:
        """Set `failed_by` and return the error."""
        self.failed_by = failed_by
        return self

    def __str__(self) -> str:
        return f"{self.message}\n{self.remedy}" if self.remedy else self.message


class InternalError(HfexportError):
    """A bug in hfexport.

    Args:
        message: location and exception, in one line.
        details: traceback for the report file; printed only on request.
    """

    def __init__(self, message: str, *, details: str = "", remedy: str = "This is a bug in hfexport.") -> None:
        super().__init__(message, remedy=remedy)
        self.details = details


class InputsError(HfexportError):
    """Options, `INPUT_*` variables or their combination are invalid.

    Args:
        problems: all problems, one sentence each; they are reported together.
    """

    exit_code = 2
    title = "Wrong inputs"

    def __init__(self, problems: tuple[str, ...] | list[str]) -> None:
        super().__init__("\n".join(problems), remedy="")
        self.problems = tuple(problems)


class CheckpointError(HfexportError):
    """The checkpoint is missing, truncated or inconsistent."""

    exit_code = 3
    title = "Checkpoint not usable"


class UnsupportedError(HfexportError):
    """The architecture is unknown, or the checkpoint has no head for the task."""

    exit_code = 4
    title = "Architecture or task not supported"


class ExportError(HfexportError):
    """A back end could not make its artifact."""

    exit_code = 5
    title = "Export failed"


class ValidationError(HfexportError):
    """The outputs of an artifact do not match the model's."""

    exit_code = 6
    title = "Validation failed"


class UpstreamError(HfexportError):
    """A library's private functions differ from those that this version of hfexport was written for."""

    title = "A library does not fit"


class PublishError(HfexportError):
    """Publishing to the Hub failed; the repository is unchanged."""

    exit_code = 7
    title = "Publishing failed"


class JobError(HfexportError):
    """A Job on the Hub could not be started or followed, or did not end by itself."""

    exit_code = 9
    title = "Job on the Hub failed"


class NeuronError(HfexportError):
    """The Neuron SDK's environment is missing or wrong, or its compiler failed."""

    exit_code = 8
    title = "Neuron toolchain missing or failed"
