"""Where a checkpoint's export config comes from: a file of `architectures`, a user's own class, or the model itself."""

from __future__ import annotations

from hfexport.modeling.user_class.onnx_config import OnnxConfig, OnnxConfigWithPast, OnnxSeq2SeqConfigWithPast
from hfexport.modeling.user_class.user_file import load_class

__all__ = ["OnnxConfig", "OnnxConfigWithPast", "OnnxSeq2SeqConfigWithPast", "load_class"]
