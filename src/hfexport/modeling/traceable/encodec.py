"""EnCodec: process audio of any length in one piece, with padding computed from the length in integers.

The original model keeps strides and kernel sizes as tensors, so the amount of padding is a tensor value. `torch.export`
cannot follow it, and a trace fixes it. The model also loops over chunks, of which there is one here, and cuts the
output only if it is longer than the input. Remove this when all three depend on shapes only. Models with a chunk length
are not changed.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.models.encodec.modeling_encodec import EncodecConv1d, EncodecLSTM, EncodecModel

from hfexport.modeling.traceable.lstm import lstm

__all__ = ["make_traceable"]


def make_traceable(model: torch.nn.Module) -> None:
    """Change an EnCodec in place."""
    for module in model.modules():
        if type(module) is EncodecConv1d:
            module.__class__ = _Convolution
        elif type(module) is EncodecModel and module.config.chunk_length is None:
            module.__class__ = _InOnePiece
        elif type(module) is EncodecLSTM:
            module.__class__ = _Lstm


# For all three classes: `torch.jit` documents `is_tracing` but does not list it in `__all__`. Only the model's own
# `forward` calls `encode` and `decode` here, and gives every argument, so they have no defaults.
class _InOnePiece(EncodecModel):
    def encode(  # type: ignore[override]
        self, input_values: torch.Tensor, padding_mask: torch.Tensor, bandwidth: float | None, return_dict: bool
    ) -> tuple[torch.Tensor, list[torch.Tensor | None], int]:
        """Encode all samples as one frame; see the original model."""
        del return_dict
        bandwidth = self.config.target_bandwidths[0] if bandwidth is None else bandwidth
        codes, scale = self._encode_frame(padding_mask.bool() * input_values, bandwidth)
        return codes[None], [scale], 0

    def decode(  # type: ignore[override]
        self,
        audio_codes: torch.Tensor,
        audio_scales: list[torch.Tensor | None],
        padding_mask: torch.Tensor,
        return_dict: bool,
        last_frame_pad_length: int,
    ) -> tuple[torch.Tensor]:
        """Decode, and cut the output to the length of the encoded audio; see the original model."""
        del return_dict, last_frame_pad_length
        audio_values = self._decode_frame(audio_codes[0], audio_scales[0])
        return (audio_values[..., : padding_mask.shape[-1]],)


class _Lstm(EncodecLSTM):
    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Add the LSTM's output to its input, (batch, channels, length); see the original model."""
        if torch.jit.is_tracing():  # type: ignore[attr-defined]
            outputs: torch.Tensor = super().forward(hidden_states)
            return outputs
        walked = hidden_states.permute(2, 0, 1)
        return (lstm(self.lstm, walked) + walked).permute(1, 2, 0)


class _Convolution(EncodecConv1d):
    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Pad to a multiple of the stride, and convolve.

        Args:
            hidden_states: (batch, channels, length).

        Returns:
            (batch, channels, ceil(length / stride)).
        """
        (kernel,), (stride,), (dilation,) = self.conv.kernel_size, self.conv.stride, self.conv.dilation
        total = (kernel - 1) * dilation + 1 - stride
        right = 0 if self.causal else total // 2
        padded = _whole if torch.jit.is_tracing() else _whole_by_symbols  # type: ignore[attr-defined]
        convolved = self.conv(padded(hidden_states, total - right, right, stride, self.pad_mode))
        normed: torch.Tensor = self.norm(convolved) if self.norm_type == "time_group_norm" else convolved
        return normed


@torch.jit.script
def _whole(hidden_states: torch.Tensor, left: int, right: int, stride: int, mode: str) -> torch.Tensor:
    length = hidden_states.size(-1)
    right += (stride - length % stride) % stride
    extra = max(0, max(left, right) - length + 1) if mode == "reflect" else 0
    padded = torch.nn.functional.pad(torch.nn.functional.pad(hidden_states, (0, extra)), (left, right), mode)
    return padded[:, :, : padded.size(-1) - extra]


def _whole_by_symbols(hidden_states: torch.Tensor, left: int, right: int, stride: int, mode: str) -> torch.Tensor:
    """Pad with zeros so that reflection is possible, pad to a multiple of the stride, and remove those zeros."""
    length: Any = hidden_states.shape[-1]
    right += -length % stride
    extra = torch.sym_max(0, torch.sym_max(left, right) - length + 1) if mode == "reflect" else 0
    padded = torch.nn.functional.pad(torch.nn.functional.pad(hidden_states, (0, extra)), (left, right), mode)
    return padded[..., : padded.shape[-1] - extra]
