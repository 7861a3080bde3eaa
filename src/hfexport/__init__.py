"""Export Hugging Face checkpoints to ONNX and TorchScript, and prove the artifacts equal to the model."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
