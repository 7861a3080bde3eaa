"""Image encoder combined with a text decoder, such as TrOCR, Donut or ViT with GPT-2."""

from __future__ import annotations

from hfexport.export_config import Axis, ExportConfig, Layout, Seq2SeqConfig, TensorSpec
from hfexport.export_config.builtin.roberta import RobertaConfig
from hfexport.export_config.tasks import TASKS

__all__ = ["VisionEncoderDecoderConfig"]


class VisionEncoderDecoderConfig(Seq2SeqConfig):
    """Any image encoder with any text decoder, as the config's `encoder` and `decoder` describe them."""

    model_types = ("vision-encoder-decoder",)
    tasks = ("vision2seq-lm", "vision2seq-lm-with-past")
    masks_decoder = False

    def graphs(self, layout: Layout) -> tuple[ExportConfig, ...]:
        if layout == "single" and self.task.with_past:
            # No input of the single graph has the length of the encoder's cache; transformers.onnx had no such graph
            # either.
            without = type(self)(self.config, TASKS["vision2seq-lm"], trust_remote_code=self.trust_remote_code)
            return without.with_more_outputs(self.more_outputs).graphs(layout)
        return super().graphs(layout)

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
        # The number of states per image depends on the encoder; the decoder takes any number.
        return ("batch",)

    @property
    def vocabulary_size(self) -> int:
        return int(self.config.decoder.vocab_size)

    @property
    def max_encoder_positions(self) -> int | None:
        return None

    @property
    def max_decoder_positions(self) -> int | None:
        decoder = self.config.decoder
        # The positions of RoBERTa and related decoders start after the padding id.
        offset = int(decoder.pad_token_id or 0) + 1 if decoder.model_type in RobertaConfig.model_types else 0
        return int(decoder.max_position_embeddings) - offset

    @property
    def decoder_layers(self) -> int:
        # Encoder-decoders whose decoder is used alone, such as mBART, use `num_hidden_layers` for the encoder's layers.
        decoder = self.config.decoder
        return int(getattr(decoder, "decoder_layers", None) or decoder.num_hidden_layers)

    @property
    def decoder_heads(self) -> int:
        decoder = self.config.decoder
        return int(getattr(decoder, "decoder_attention_heads", None) or decoder.num_attention_heads)

    @property
    def head_size(self) -> int:
        return int(self.config.decoder.hidden_size) // self.decoder_heads
