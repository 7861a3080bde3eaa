"""Perceiver: latent vectors that attend to text or to an image; both inputs are named `inputs`."""

from __future__ import annotations

from typing import Any, ClassVar

from hfexport.export_config import EncoderConfig, ExportConfig, TensorSpec, Tolerance, VisionConfig
from hfexport.export_config.tasks import Task

__all__ = ["PerceiverConfig"]


class PerceiverConfig(ExportConfig):
    """Perceiver for text or for images, depending on the task."""

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
        # One query per position of the model, however short the text is.
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
        """Return the configured size if positions are learned; the other models in transformers expect 224 pixels."""
        return super().image_size if self._learned else (224, 224)

    @property
    def _learned(self) -> bool:
        return "PerceiverForImageClassificationLearned" in (self.config.architectures or ())

    def tolerance(self, dtype: str) -> Tolerance:
        tolerance = super().tolerance(dtype)
        # The attention of a latent sums over 50,176 pixels, in an order that depends on the runtime.
        return tolerance if self._learned or dtype != "fp32" else Tolerance(5e-5, tolerance.rtol)
