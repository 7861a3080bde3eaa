"""Measured speed as typed data; see `hfexport.manifest.model`."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, TypedDict

from msgspec import Meta

from hfexport.manifest.scalars import Count, Seconds

__all__ = ["BenchmarkEntry", "CallEntry", "ContenderEntry", "TimingEntry"]


class CallEntry(TypedDict):
    """A call whose time was measured: a graph, and the sizes of its free axes."""

    graph: str
    name: str
    kind: Annotated[
        Literal["call", "prefill", "decode"],
        Meta(description="A decoder reads a prompt (`prefill`) or one token after a cache (`decode`)."),
    ]
    sizes: dict[str, Count]


class TimingEntry(TypedDict):
    """Latency of one call, over all repetitions in all rounds; without figures if `reason` says why."""

    call: Annotated[Count, Meta(description="Position in `calls`.")]
    median_ms: NotRequired[Seconds]
    p10_ms: NotRequired[Annotated[float, Meta(ge=0, description="A tenth of the repetitions took at most this long.")]]
    p90_ms: NotRequired[Annotated[float, Meta(ge=0, description="A tenth of the repetitions took longer.")]]
    repetitions: NotRequired[Count]
    tokens_per_s: NotRequired[
        Annotated[float, Meta(ge=0, description="Tokens that a decoder reads a second, over the whole batch.")]
    ]
    reason: NotRequired[str]


class ContenderEntry(TypedDict):
    """The model itself, or the files of one kind; `reason` says why it was not measured, or not to the end."""

    name: str
    format: Annotated[str | None, Meta(description="Null for the model itself, in eager PyTorch.")]
    variant: str | None
    paths: list[str]
    size_bytes: Count
    rounds: Count
    reason: str
    timings: list[TimingEntry]


class BenchmarkEntry(TypedDict):
    """Measured speed of the model and its artifacts on the machine that made them."""

    threads: Count
    budget_s: Seconds
    seconds: Seconds
    attention: Annotated[str, Meta(description="Attention implementation of the model in eager PyTorch.")]
    calls: list[CallEntry]
    contenders: list[ContenderEntry]
