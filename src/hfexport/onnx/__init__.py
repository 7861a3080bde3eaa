"""What `transformers.onnx` gave: its base classes, functions and command line (`python -m hfexport.onnx`).

Exports and validation are hfexport's own; only names and calling conventions are those of the older package.
"""

from __future__ import annotations

from hfexport.interface import OnnxConfig, OnnxConfigWithPast, OnnxSeq2SeqConfigWithPast

__all__ = ["OnnxConfig", "OnnxConfigWithPast", "OnnxSeq2SeqConfigWithPast"]
