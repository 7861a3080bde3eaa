"""Image models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from hfexport.export_config.axes import Axis
from hfexport.export_config.base import ExportConfig, Limit, TensorSpec

if TYPE_CHECKING:
    from hfexport.export_config.probes.probe import Probe

__all__ = ["VisionConfig"]


class VisionConfig(ExportConfig):
    """Base class for image models: `pixel_values` as (batch, channels, height, width)."""

    free_image_size: ClassVar[bool] = False
    """Whether height and width may differ from the configured size (fully convolutional models)."""

    min_image_size: ClassVar[int] = 1
    """Smallest height and width in pixels, if they are free."""

    size_step: ClassVar[int] = 1
    """Divisor of height and width, if they are free; the model rejects other sizes."""

    pools: ClassVar[bool] = False
    """Whether the pooled features of the bare model are an output, as in `transformers.onnx`."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        height, width = self.image_size
        size: tuple[Axis, Axis] = ("height", "width") if self.free_image_size else (height, width)
        return (TensorSpec("pixel_values", ("batch", self.config.num_channels, *size), "float", "pixel_values"),)

    @property
    def own_outputs(self) -> tuple[TensorSpec, ...]:
        # The task's `sequence` axis is for text; that of an image model is fixed or depends on the image's size.
        names = list(self.task.outputs)
        if self.pools and self.task.name == "default":
            names.append("pooler_output")
        return tuple(TensorSpec(name, ("batch",), "float", "output") for name in names)

    @property
    def image_size(self) -> tuple[int, int]:
        """Return the configured (height, width) in pixels."""
        size = getattr(self.config, "image_size", 224)
        return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))

    @property
    def limits(self) -> Mapping[str, Limit]:
        if not self.free_image_size:
            return {}
        return {"height": Limit(self.min_image_size), "width": Limit(self.min_image_size)}

    @property
    def trace_sizes(self) -> Mapping[str, int]:
        height, width = self.image_size
        return {"batch": 2, "height": height, "width": width}

    def probes(self) -> list[Probe]:
        from hfexport.export_config.probes.plans import vision_probes

        return vision_probes(self)
