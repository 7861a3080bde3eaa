"""Jobs and answers of the processes that measure variants; they are checked when they are read."""

from __future__ import annotations

from typing import Literal

import msgspec

from hfexport._internal.messages import Answer, Message
from hfexport.export_config.probes import Probe
from hfexport.export_config.recipe import Recipe

__all__ = ["ModelAnswer", "ModelCase", "ModelGraph", "ModelJob", "StoredAnswer", "StoredJob"]


class ModelGraph(Message, frozen=True):
    """A graph of the model.

    Attributes:
        recipe: see `ExportConfig.recipe`.
        folder: folder in which `inputs/{n}` and `outputs/{n}` are written.
    """

    recipe: Recipe
    folder: str


class ModelJob(Message, frozen=True):
    """Choose inputs and run the model in float32 on them.

    Attributes:
        checkpoint: folder with float32 weights.
        tokenizer: folder with the checkpoint's tokenizer or processor.
        data: path of the user's data; `None` for the texts that ship with hfexport.
        threads: number of threads.
        graphs: graphs that share the model; there is at least one.
    """

    checkpoint: str
    tokenizer: str
    data: str | None
    threads: int
    graphs: tuple[ModelGraph, ...]


class ModelCase(Message, frozen=True):
    """An input on which the model was run.

    Attributes:
        probe: sizes and seed of the input.
        real: whether it comes from data, and not from a seed.
    """

    probe: Probe
    real: bool


class ModelAnswer(Answer, frozen=True):
    """Result of a `ModelJob`.

    Attributes:
        data: description of the inputs.
        samples: number of texts, images or sounds.
        graphs: cases by name of the graph.
    """

    data: str
    samples: int
    graphs: dict[str, tuple[ModelCase, ...]]


class StoredJob(Message, frozen=True):
    """Compare the weights of two files of one graph.

    Attributes:
        format: format of both files.
        plain: path of the file in float32 or float16.
        variant: path of the variant's file.
    """

    format: Literal["onnx", "torchscript"]
    plain: str
    variant: str


class StoredAnswer(Answer, frozen=True):
    """Result of a `StoredJob`.

    Attributes:
        error: largest error of a weight relative to what rounding allows.
        worst: name of that weight.
        missing: names of weights of the plain file that the variant lacks.
    """

    error: float = 0.0
    worst: str = ""
    missing: tuple[str, ...] = msgspec.field(default=())
