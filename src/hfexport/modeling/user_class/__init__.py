"""Export configs that users define as classes in a file of their own."""

from __future__ import annotations

from hfexport.modeling.user_class.onnx_config import OnnxConfig, OnnxConfigWithPast, OnnxSeq2SeqConfigWithPast
from hfexport.modeling.user_class.user_file import load_class

__all__ = ["OnnxConfig", "OnnxConfigWithPast", "OnnxSeq2SeqConfigWithPast", "load_class"]
