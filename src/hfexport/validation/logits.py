"""Compare the logits of graphs that a target made with those of the proven graphs that they were made from.

Both run in a child process (see `hfexport._internal.workers`), without torch, on tokens drawn from a seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hfexport._internal import workers
from hfexport._internal.messages import Answer, Message, plain, read
from hfexport.errors import ValidationError
from hfexport.validation.limits import runner_limits

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MAX_SHARE", "Child", "LogitsAnswer", "LogitsJob", "answer_logits", "check_logits"]

MAX_SHARE: Final = 1e-3
"""Largest difference, as a share of the largest logit: all graphs do the same arithmetic on the same weights."""


class LogitsJob(Message, frozen=True):
    """Base of jobs that call graphs on the same tokens.

    Attributes:
        vocabulary: number of token ids.
        weight_bytes: size of the weights.
        threads: number of threads.
    """

    vocabulary: int
    weight_bytes: int
    threads: int


class LogitsAnswer(Answer, frozen=True):
    """Largest difference between logits, and the largest of the proven graphs' logits."""

    difference: float
    largest: float


@dataclass(frozen=True)
class Child:
    """The child process of a comparison.

    Attributes:
        folder: folder for its files.
        env: environment; the child gets an allow-list of it.
        timeout_s: time limit in seconds.
        limited: limit its memory, processor time and file size, see `runner_limits`.
    """

    folder: Path
    env: Mapping[str, str]
    timeout_s: float
    limited: bool = False


def check_logits(
    module: str, job: LogitsJob, child: Child, *, name: str, finding: str, max_share: float = MAX_SHARE
) -> None:
    """Run a comparison, and check that the logits are the same.

    Args:
        module: module whose `run` takes `job` and returns the result of `answer_logits`.
        job: the comparison.
        child: its process.
        name: name of the process in messages.
        finding: start of the error message, which names both graphs.
        max_share: largest difference, as a share of the largest logit.

    Raises:
        ValidationError: the logits differ, or a graph does not run.
    """
    limits = runner_limits(job.weight_bytes, child.timeout_s, job.threads) if child.limited else None
    environment = workers.child_environment(child.env)
    with workers.start(
        module, plain(job), name=name, folder=child.folder, env=environment, kind="onnx", limits=limits
    ) as worker:
        answer = read(worker.result(child.timeout_s), LogitsAnswer)
    if not answer.difference <= max_share * answer.largest:  # also if it is NaN
        raise ValidationError(
            f"{finding} by {answer.difference:.2g}, where the largest logit is {answer.largest:.2g}",
            remedy="Do not use this export; please report it. Without target genai the other files can be exported.",
        )


def answer_logits(wanted: Sequence[NDArray[Any]], found: Sequence[NDArray[Any]]) -> dict[str, Any]:
    """Return the values of a `LogitsAnswer` for the logits of each call, of the proven graphs and of the others."""
    import numpy as np

    difference = max(float(np.abs(one - other).max()) for one, other in zip(wanted, found, strict=True))
    largest = max(float(np.abs(one).max()) for one in wanted)
    return plain(LogitsAnswer(difference=difference, largest=largest))
