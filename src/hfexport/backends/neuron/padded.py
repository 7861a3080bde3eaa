"""Interfaces and probes of the encoder and decoder graphs that generate text at fixed sizes.

The scheme is that of AWS's MarianMT tutorial for Inf1. The encoder runs once. The decoder runs for every token: it
takes all tokens so far, padded to its fixed length, and returns the logits of the last one. There is no cache, since
its size would grow. Does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from hfexport.export_config import ExportConfig, TensorSpec
from hfexport.export_config.arrays import Arrays
from hfexport.export_config.probes import Probe
from hfexport.export_config.tasks import TASKS

__all__ = ["GENERATION_TASK", "PaddedDecoder", "PaddedEncoder", "PaddedProbe", "generates_padded", "padded_probes"]

GENERATION_TASK: Final = "seq2seq-lm"


def generates_padded(config: ExportConfig) -> bool:
    """Return whether the model is an encoder-decoder for text generation, compiled as two graphs."""
    return config.task.name.removesuffix("-with-past") == GENERATION_TASK


class _Padded(ExportConfig):
    """Properties that both graphs share.

    Args:
        config: the model's config.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config, TASKS[GENERATION_TASK])

    @property
    def states(self) -> TensorSpec:
        """The encoder's states, (batch, encoder_sequence, hidden)."""
        hidden = int(getattr(self.config, "d_model", 0) or self.config.hidden_size)
        return TensorSpec("encoder_hidden_states", ("batch", "encoder_sequence", hidden), "float", "output")

    @property
    def trace_sizes(self) -> Mapping[str, int]:
        return {"batch": 2, "encoder_sequence": 9, "decoder_sequence": 7}


class PaddedEncoder(_Padded):
    """Encoder graph: takes `input_ids` and `attention_mask`, both (batch, encoder_sequence)."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        axes = ("batch", "encoder_sequence")
        return (
            TensorSpec("input_ids", axes, "int64", "token_ids"),
            TensorSpec("attention_mask", axes, "int64", "attention_mask"),
        )

    @property
    def own_outputs(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec("last_hidden_state", self.states.axes, "float", "output"),)


class PaddedDecoder(_Padded):
    """Decoder graph: returns `logits` (batch, 1, vocabulary) of the token at position `index` (batch) in each row."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return (
            TensorSpec("decoder_input_ids", ("batch", "decoder_sequence"), "int64", "token_ids"),
            TensorSpec("encoder_attention_mask", ("batch", "encoder_sequence"), "int64", "attention_mask"),
            self.states,
            TensorSpec("index", ("batch",), "int64", "position_ids"),
        )

    @property
    def own_outputs(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec("logits", ("batch", 1), "float", "output"),)


@dataclass(frozen=True)
class PaddedProbe(Probe):
    """A probe for the encoder or decoder graph.

    Attributes:
        lengths: numbers of tokens so far in a decoder's rows, start token included; rows cycle through them.
    """

    lengths: tuple[int, ...] = ()

    def inputs(self, config: ExportConfig, dtype: str) -> Arrays:
        if isinstance(config, PaddedEncoder):
            return super().inputs(config, dtype)
        return _decoder_inputs(config, self)


def _decoder_inputs(config: ExportConfig, probe: PaddedProbe) -> Arrays:
    import numpy as np

    rng = np.random.default_rng(probe.seed)
    batch, read, written = (probe.sizes[axis] for axis in ("batch", "encoder_sequence", "decoder_sequence"))
    lengths = np.resize(np.array(probe.lengths, np.int64), batch)
    ids = rng.integers(0, config.vocabulary_size, (batch, written), dtype=np.int64)
    ids[np.arange(written) >= lengths[:, None]] = int(getattr(config.config, "pad_token_id", None) or 0)
    mask = np.ones((batch, read), np.int64)
    if probe.padding == "right":
        for row, values in enumerate(mask):
            values[read - min(read - 1, (row + 1) * max(1, read // 3)) :] = 0
    states_axis = next(spec for spec in config.inputs if spec.name == "encoder_hidden_states").axes[-1]
    states = rng.standard_normal((batch, read, int(states_axis))).astype(np.float32)
    return {
        "decoder_input_ids": ids,
        "encoder_attention_mask": mask,
        "encoder_hidden_states": states,
        "index": lengths - 1,
    }


def padded_probes(sizes: Mapping[str, int], *, decoder: bool) -> tuple[PaddedProbe, ...]:
    """Create probes at the fixed sizes, with varying padding and, for a decoder, varying numbers of written tokens."""
    shape = ", ".join(f"{axis} {size}" for axis, size in sizes.items())
    if not decoder:
        return (
            PaddedProbe(shape, sizes, "none", 1, edge_tokens=True),
            PaddedProbe(f"{shape}, right padding", sizes, "right", 2),
        )
    last = sizes["decoder_sequence"]
    written = ((1,), (last,), (max(1, last // 2), max(1, last - 1), 1))
    return tuple(
        PaddedProbe(
            f"{shape}, {'/'.join(map(str, lengths))} written, {padding} padding",
            sizes,
            padding,  # type: ignore[arg-type]
            seed,
            lengths=lengths,
        )
        for seed, (lengths, padding) in enumerate(zip(written, ("none", "right", "right"), strict=True), start=3)
    )
