"""An image encoder and a text decoder put together, such as TrOCR, Donut or ViT with GPT-2."""

from __future__ import annotations

from hfexport.export_config import Axis, Seq2SeqConfig, TensorSpec

__all__ = ["VisionEncoderDecoderConfig"]


class VisionEncoderDecoderConfig(Seq2SeqConfig):
    """Any image encoder with any text decoder. What each of them is says the config's `encoder` and `decoder`."""

    model_types = ("vision-encoder-decoder",)
    tasks = ("vision2seq-lm",)
    masks_decoder = False

    @property
    def encoder_inputs(self) -> tuple[TensorSpec, ...]:
        size = self.config.encoder.image_size
        height, width = (size, size) if isinstance(size, int) else size
        axes: tuple[Axis, ...] = ("batch", int(self.config.encoder.num_channels), int(height), int(width))
        return (TensorSpec("pixel_values", axes, "float", "pixel_values"),)

    @property
    def encoder_size(self) -> int:
        return int(self.config.encoder.hidden_size)

    @property
    def encoder_outputs(self) -> tuple[Axis, ...]:
        # How many states an image gives is the encoder's own affair; the decoder takes any number.
        return ("batch",)

    @property
    def vocabulary_size(self) -> int:
        return int(self.config.decoder.vocab_size)

    @property
    def max_encoder_positions(self) -> int | None:
        return None

    @property
    def max_decoder_positions(self) -> int | None:
        return int(self.config.decoder.max_position_embeddings)
