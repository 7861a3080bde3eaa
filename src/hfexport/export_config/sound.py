"""Encoder-decoders that read audio of any length and shorten it with convolutions before attention."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from hfexport.export_config.axes import Axis
from hfexport.export_config.base import TensorSpec
from hfexport.export_config.seq2seq import STATES, Seq2SeqConfig

__all__ = ["Convolution", "SoundSeq2SeqConfig"]


@dataclass(frozen=True)
class Convolution:
    """Parameters of one convolution along time, as in `torch.nn.Conv1d`."""

    kernel: int
    stride: int
    padding: int = 0

    def shortened(self, length: int) -> int:
        """Return the output length for an input of `length`; 0 if the input is too short."""
        return max(0, (length + 2 * self.padding - self.kernel) // self.stride + 1)

    def needed(self, positions: int) -> int:
        """Return the shortest input length that yields `positions` output positions."""
        return (positions - 1) * self.stride + self.kernel - 2 * self.padding


class SoundSeq2SeqConfig(Seq2SeqConfig):
    """Base class for audio to text. A mask marks padded audio; the decoder takes it at the same length."""

    masks_decoder = False

    @property
    @abstractmethod
    def convolutions(self) -> tuple[Convolution, ...]:
        """Return the convolutions that shorten the audio, in order."""

    @property
    def encoder_inputs(self) -> tuple[TensorSpec, ...]:
        axes: tuple[Axis, ...] = ("batch", self.encoder_axis)
        return (
            TensorSpec("input_values", axes, "float", "signal"),
            TensorSpec("attention_mask", axes, "int64", "attention_mask"),
        )

    @property
    def states_axis(self) -> Axis:
        return STATES

    def states_length(self, length: int) -> int:
        for convolution in self.convolutions:
            length = convolution.shortened(length)
        return length

    def encoder_length(self, states: int) -> int:
        for convolution in reversed(self.convolutions):
            states = convolution.needed(states)
        return states
