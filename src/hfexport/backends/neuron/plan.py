"""What is compiled of a model: all of it as one graph, or an encoder and a decoder apart, each at its fixed sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from hfexport.backends.neuron.padded import PaddedDecoder, PaddedEncoder, padded_probes
from hfexport.export_config import ExportConfig
from hfexport.export_config.probes import Probe, fixed_probes, make_inputs
from hfexport.runtime import Description

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DTYPE", "PartPlan", "plan_encoder_decoder", "plan_model"]

DTYPE: Final = "fp32"
"""Of weights and of the reference, whatever the checkpoint's: the compiler casts to what the device computes in."""

TRACE_SEED: Final = 7


@dataclass(frozen=True)
class PartPlan:
    """One graph to compile.

    Attributes:
        name: `model`, `encoder` or `decoder`.
        config: its inputs and outputs.
        sizes: of all free axes.
        free_batch: the batch may be any (dynamic batch size).
        probes: what it is asked, none of which it is traced with.
    """

    name: str
    config: ExportConfig
    sizes: Mapping[str, int]
    probes: tuple[Probe, ...]
    free_batch: bool = False

    @property
    def held(self) -> dict[str, int]:
        """Sizes that the artifact holds fixed."""
        return {axis: size for axis, size in self.sizes.items() if not (self.free_batch and axis == "batch")}

    def description(self, metadata: Mapping[str, str]) -> Description:
        """What the artifact says of itself, inside its file."""
        return Description.of(self.config, DTYPE, fixed_sizes=self.held, metadata=metadata)

    def example(self) -> dict[str, NDArray[Any]]:
        """What it is traced with: values and paddings that no probe has."""
        if isinstance(self.config, PaddedDecoder):
            return replace(self.probes[-1], seed=TRACE_SEED).inputs(self.config, DTYPE)
        return make_inputs(self.config, self.sizes, DTYPE, padding="right", seed=TRACE_SEED)


def plan_model(config: ExportConfig, sizes: Mapping[str, int], *, free_batch: bool) -> tuple[PartPlan, ...]:
    """The whole model, or an encoder alone, as one graph.

    Padding stands on the right, where the run time pads. What a decoder gives for a place that it is told to ignore, as
    the left of a row is then, differs from one version of transformers to the next.
    """
    asked = (sizes, {**sizes, "batch": 2 * sizes["batch"] + 1}) if free_batch else (sizes,)
    probes = (probe for one in asked for probe in fixed_probes(config, one))
    right = tuple(probe for probe in probes if probe.padding != "left")
    return (PartPlan(config.part, config, sizes, right, free_batch),)


def plan_encoder_decoder(
    config: ExportConfig, *, batch: int, read: int, written: int, beams: int, free_batch: bool
) -> tuple[PartPlan, ...]:
    """An encoder-decoder that writes text.

    Args:
        config: of the model.
        batch: texts at a time.
        read: tokens of a text.
        written: tokens that the decoder can write, the start token among them.
        beams: of each text; the decoder's batch holds all of them.
        free_batch: both graphs take any batch.
    """
    encoder, decoder = PaddedEncoder(config.config), PaddedDecoder(config.config)
    reading = {"batch": batch, "encoder_sequence": read}
    writing = {"batch": batch * beams, "encoder_sequence": read, "decoder_sequence": written}
    return (
        PartPlan("encoder", encoder, reading, padded_probes(reading, decoder=False), free_batch),
        PartPlan("decoder", decoder, writing, padded_probes(writing, decoder=True), free_batch),
    )
