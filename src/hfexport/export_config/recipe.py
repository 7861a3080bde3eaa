"""JSON values from which another process builds the same export config; they are checked when a job is read."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

__all__ = ["InterfaceValues", "Recipe", "SentenceValues", "Seq2SeqValues", "TaskValues", "TensorValues"]


class TensorValues(TypedDict):
    """Values of a `TensorSpec`."""

    name: str
    axes: list[str | int]
    dtype: str
    role: str


class TaskValues(TypedDict):
    """Values of a `Task`."""

    name: str
    auto_class: str
    heads: list[str]
    outputs: dict[str, list[str]]
    with_past: bool


class LimitValues(TypedDict):
    """Values of a `Limit`."""

    minimum: int
    maximum: int | None


class InterfaceValues(TypedDict):
    """Values of an `Interface`."""

    origin: str
    inputs: list[TensorValues]
    outputs: list[TensorValues]
    trace_sizes: dict[str, int]
    limits: dict[str, LimitValues]
    thresholds: dict[str, int]
    vocabulary_size: int | None
    decoder_vocabulary_size: int | None
    image_tokens: int
    samples: dict[str, Any]
    atol: float | None
    opset: int | None
    config_values: dict[str, Any]


class Seq2SeqValues(TypedDict):
    """Values of a `Seq2SeqInterface`."""

    origin: str
    inputs: list[str]
    outputs: list[str]
    layers: int
    heads: int
    head_size: int
    encoder_positions: int | None
    decoder_positions: int | None
    vocabulary_size: int
    atol: float
    opset: int
    config_values: dict[str, Any]


class DenseValues(TypedDict):
    """Values of a `Dense`."""

    file: str
    activation: str


class SpladeValues(TypedDict):
    """Values of a `Splade`."""

    strategy: Literal["max", "sum"]
    log_twice: bool


class SentenceValues(TypedDict):
    """Values of `SentenceModules`."""

    pooling: list[str]
    dense: list[DenseValues]
    normalize: bool
    truncate_dim: int | None
    splade: SpladeValues | None


class Recipe(TypedDict):
    """Values of an `ExportConfig`; see `hfexport.export_config.builtin.restore_config`.

    Attributes:
        model_type: `model_type` in config.json.
        task: name of a task that hfexport knows, or the values of another.
        trust_remote_code: the model's class is code from the checkpoint.
        sentence: modules that pool token embeddings.
        more_outputs: further outputs by name of the graph.
        positions: measured numbers of positions by name of the property that they replace.
        graph: name of a graph of an encoder-decoder.
        interface: interface of a model without a class in `builtin/`.
        seq2seq: the same for an encoder-decoder of a user's class.
    """

    model_type: str
    task: str | TaskValues
    trust_remote_code: bool
    sentence: NotRequired[SentenceValues]
    more_outputs: NotRequired[dict[str, list[TensorValues]]]
    positions: NotRequired[dict[str, int]]
    graph: NotRequired[str]
    interface: NotRequired[InterfaceValues]
    seq2seq: NotRequired[Seq2SeqValues]
