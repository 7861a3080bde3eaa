"""ImageGPT: an image as a sequence of colour ids."""

from __future__ import annotations

from collections.abc import Mapping

from hfexport.export_config import ExportConfig, Limit, TensorSpec

__all__ = ["ImageGptConfig"]


class ImageGptConfig(ExportConfig):
    """ImageGPT: every pixel is the id of a colour cluster. Images are never padded, so there is no mask."""

    model_types = ("imagegpt",)
    tasks = ("default", "image-classification")

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec("input_ids", ("batch", "sequence"), "int64", "token_ids"),)

    @property
    def limits(self) -> Mapping[str, Limit]:
        return {"sequence": Limit(1, int(self.config.n_positions))}

    @property
    def trace_sizes(self) -> Mapping[str, int]:
        return {"batch": 2, "sequence": 7}
