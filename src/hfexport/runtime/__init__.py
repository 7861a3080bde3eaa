"""Load and call artifacts by input names; pad inputs of fixed-shape artifacts to their sizes.

Needs numpy only, except for `load_torchscript` and `load_onnx`.
"""

from __future__ import annotations

from hfexport.runtime.artifacts import (
    DESCRIPTION_FILE,
    Description,
    OnnxModel,
    TorchScriptModel,
    load_onnx,
    load_torchscript,
)
from hfexport.runtime.shapes import input_sizes, pad_to_fixed, slice_outputs

__all__ = [
    "DESCRIPTION_FILE",
    "Description",
    "OnnxModel",
    "TorchScriptModel",
    "input_sizes",
    "load_onnx",
    "load_torchscript",
    "pad_to_fixed",
    "slice_outputs",
]
