"""Whisper: speech recognition for audio of one fixed length."""

from __future__ import annotations

from hfexport.export_config import Axis, Seq2SeqConfig, TensorSpec

__all__ = ["WhisperConfig"]


class WhisperConfig(Seq2SeqConfig):
    """Whisper. Spectrograms are padded to the fixed length, so there is no mask."""

    model_types = ("whisper",)
    tasks = ("default", "default-with-past", "speech2seq-lm", "speech2seq-lm-with-past")
    masks_decoder = False

    @property
    def encoder_inputs(self) -> tuple[TensorSpec, ...]:
        # The encoder combines two frames into one position.
        axes: tuple[Axis, ...] = ("batch", int(self.config.num_mel_bins), 2 * self.max_encoder_positions)
        return (TensorSpec("input_features", axes, "float", "signal"),)

    @property
    def states_axis(self) -> Axis:
        return self.max_encoder_positions

    @property
    def max_encoder_positions(self) -> int:
        return int(self.config.max_source_positions)

    @property
    def max_decoder_positions(self) -> int:
        return int(self.config.max_target_positions)
