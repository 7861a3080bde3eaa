"""Perceiver: a few latent vectors read an input of any kind, text or an image, which is called `inputs` for both."""

from __future__ import annotations

from typing import Any, ClassVar

from hfexport.export_config import EncoderConfig, ExportConfig, TensorSpec, Tolerance, VisionConfig
from hfexport.export_config.tasks import Task

__all__ = ["PerceiverConfig"]


class PerceiverConfig(ExportConfig):
    """Perceiver, as the task asks: for text or for images."""

    model_types: ClassVar[tuple[str, ...]] = ("perceiver",)
    tasks: ClassVar[tuple[str, ...]] = ("masked-lm", "sequence-classification", "image-classification")

    def __new__(cls, config: Any, task: Task, **options: Any) -> PerceiverConfig:  # noqa: PYI034 - one of two others
        del config, options
        return super().__new__(_Images if task.name == "image-classification" else _Text)


class _Text(PerceiverConfig, EncoderConfig):
    model_types = ()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        ids, mask = super().inputs
        return (TensorSpec("inputs", ids.axes, ids.dtype, ids.role), mask)

    @property
    def own_outputs(self) -> tuple[TensorSpec, ...]:
        if self.task.name != "masked-lm":
            return super().own_outputs
        # One query a position that the model knows, however short the text.
        return (TensorSpec("logits", ("batch", self.max_positions), "float", "output"),)

    @property
    def max_positions(self) -> int:
        return int(self.config.max_position_embeddings)


class _Images(PerceiverConfig, VisionConfig):
    model_types = ()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec("inputs", ("batch", 3, *self.image_size), "float", "pixel_values"),)

    @property
    def image_size(self) -> tuple[int, int]:
        """The configured size where positions are learned; the others of transformers are made for 224 pixels."""
        return super().image_size if self._learned else (224, 224)

    @property
    def _learned(self) -> bool:
        return "PerceiverForImageClassificationLearned" in (self.config.architectures or ())

    def tolerance(self, dtype: str) -> Tolerance:
        tolerance = super().tolerance(dtype)
        # A latent's attention adds up 50,176 pixels, in another order in every run time.
        return tolerance if self._learned or dtype != "fp32" else Tolerance(5e-5, tolerance.rtol)
