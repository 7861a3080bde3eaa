"""LayoutLMv3: words of a page, their bounding boxes, and the image of the page."""

from __future__ import annotations

from hfexport.export_config import EncoderConfig, TensorSpec

__all__ = ["LayoutLmV3Config"]


class LayoutLmV3Config(EncoderConfig):
    """LayoutLMv3."""

    model_types = ("layoutlmv3",)
    tasks = ("default", "question-answering", "sequence-classification", "token-classification")

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        ids, mask = super().inputs
        boxes = TensorSpec("bbox", ("batch", "sequence", 4), "int64", "boxes")
        size = self.config.input_size
        image = TensorSpec("pixel_values", ("batch", self.config.num_channels, size, size), "float", "pixel_values")
        if self.task.name in ("question-answering", "sequence-classification"):
            return ids, mask, boxes, image
        return ids, boxes, mask, image

    @property
    def own_outputs(self) -> tuple[TensorSpec, ...]:
        if self.task.name == "token-classification":
            return super().own_outputs
        # The image's patches follow the tokens, in outputs and hidden states too.
        return tuple(TensorSpec(name, ("batch",), "float", "output") for name in self.task.outputs)

    @property
    def max_positions(self) -> int:
        # As in RoBERTa, positions start after the padding id.
        return int(self.config.max_position_embeddings) - int(self.config.pad_token_id) - 1
