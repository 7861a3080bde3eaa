"""Jobs of the processes that time a contender; see `hfexport.validation.messages`."""

from __future__ import annotations

from typing import Literal

from hfexport._internal.messages import Message
from hfexport.export_config.recipe import Recipe
from hfexport.validation.messages import GraphFile

__all__ = ["ArtifactJob", "EagerJob", "TimedCall"]


class TimedCall(Message, frozen=True):
    """A call to time.

    Attributes:
        number: number of the call; its inputs are in the folder of that name.
        graph: name of the graph to call.
    """

    number: int
    graph: str


class ArtifactJob(Message, frozen=True):
    """Load an artifact as a user does, and time its calls.

    Attributes:
        format: name of the artifact's format.
        graphs: files of all graphs.
        calls: calls to time, in order.
        inputs: folder with the inputs of each call.
        folder: folder for the times.
        threads: number of threads.
        budget_s: seconds after which no further call is started.
    """

    format: str
    graphs: tuple[GraphFile, ...]
    calls: tuple[TimedCall, ...]
    inputs: str
    folder: str
    threads: int
    budget_s: float


class EagerJob(Message, frozen=True):
    """Load the model, and time the calls of its parts.

    Attributes:
        checkpoint: folder of the checkpoint.
        recipes: of the graphs, in the order in which generation runs them; see `ExportConfig.recipe`.
        dtype: `fp32` or `fp16`.
        calls: see `ArtifactJob`.
        inputs: see `ArtifactJob`.
        folder: see `ArtifactJob`.
        threads: see `ArtifactJob`.
        budget_s: see `ArtifactJob`.
    """

    checkpoint: str
    recipes: tuple[Recipe, ...]
    dtype: Literal["fp32", "fp16"]
    calls: tuple[TimedCall, ...]
    inputs: str
    folder: str
    threads: int
    budget_s: float
