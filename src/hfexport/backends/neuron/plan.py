"""Plan which graphs to compile: the whole model, or an encoder and a decoder, each at its fixed sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from hfexport.backends.neuron.padded import PaddedDecoder, PaddedEncoder, padded_probes
from hfexport.export_config import ExportConfig
from hfexport.export_config.arrays import Arrays
from hfexport.export_config.probes import Probe, fixed_probes, make_inputs
from hfexport.runtime import Description

__all__ = ["DTYPE", "PartPlan", "plan_encoder_decoder", "plan_model"]

DTYPE: Final = "fp32"
"""Dtype of weights and reference for every checkpoint; the compiler casts to the device's dtype."""

TRACE_SEED: Final = 7


@dataclass(frozen=True)
class PartPlan:
    """One graph to compile.

    Attributes:
        name: `model`, `encoder` or `decoder`.
        config: inputs and outputs of the graph.
        sizes: sizes of all free axes.
        free_batch: whether any batch size is accepted (dynamic batch size).
        probes: validation probes; tracing uses none of them.
    """

    name: str
    config: ExportConfig
    sizes: Mapping[str, int]
    probes: tuple[Probe, ...]
    free_batch: bool = False

    @property
    def held(self) -> dict[str, int]:
        """Sizes that are fixed in the artifact."""
        return {axis: size for axis, size in self.sizes.items() if not (self.free_batch and axis == "batch")}

    def description(self, metadata: Mapping[str, str]) -> Description:
        """Create the description that is stored inside the artifact's file."""
        return Description.of(self.config, DTYPE, fixed_sizes=self.held, metadata=metadata)

    def example(self) -> Arrays:
        """Create the inputs for tracing, with values and paddings that no probe has."""
        if isinstance(self.config, PaddedDecoder):
            return replace(self.probes[-1], seed=TRACE_SEED).inputs(self.config, DTYPE)
        return make_inputs(self.config, self.sizes, DTYPE, padding="right", seed=TRACE_SEED)


def plan_model(config: ExportConfig, sizes: Mapping[str, int], *, free_batch: bool) -> tuple[PartPlan, ...]:
    """Plan the whole model, or an encoder alone, as one graph.

    Probes with left padding are left out, since the runtime pads on the right. The outputs that a decoder computes for
    masked positions on the left differ between versions of transformers.
    """
    asked = (sizes, {**sizes, "batch": 2 * sizes["batch"] + 1}) if free_batch else (sizes,)
    probes = (probe for one in asked for probe in fixed_probes(config, one))
    right = tuple(probe for probe in probes if probe.padding != "left")
    return (PartPlan(config.part, config, sizes, right, free_batch),)


def plan_encoder_decoder(
    config: ExportConfig, *, batch: int, read: int, written: int, beams: int, free_batch: bool
) -> tuple[PartPlan, ...]:
    """Plan the two graphs of an encoder-decoder for text generation.

    Args:
        config: the model's interface.
        batch: number of texts in a batch.
        read: maximum number of tokens of a text.
        written: maximum number of tokens to generate, start token included.
        beams: number of beams for each text; the decoder's batch holds all of them.
        free_batch: whether both graphs accept any batch size.
    """
    encoder, decoder = PaddedEncoder(config.config), PaddedDecoder(config.config)
    reading = {"batch": batch, "encoder_sequence": read}
    writing = {"batch": batch * beams, "encoder_sequence": read, "decoder_sequence": written}
    return (
        PartPlan("encoder", encoder, reading, padded_probes(reading, decoder=False), free_batch),
        PartPlan("decoder", decoder, writing, padded_probes(writing, decoder=True), free_batch),
    )
