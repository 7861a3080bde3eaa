"""Drop-in replacement for `transformers.onnx`: its classes, functions and command line (`python -m hfexport.onnx`).

Export and validation are hfexport's own; only names and calling conventions come from the older package. Every
architecture that hfexport supports by name has its class here, such as `DistilBertOnnxConfig`, named after its config
in transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hfexport.modeling.user_class import OnnxConfig, OnnxConfigWithPast, OnnxSeq2SeqConfigWithPast

if TYPE_CHECKING:
    from hfexport.onnx.convert import export, validate_model_outputs
    from hfexport.onnx.features import FeaturesManager

__all__ = [
    "FeaturesManager",
    "OnnxConfig",
    "OnnxConfigWithPast",
    "OnnxSeq2SeqConfigWithPast",
    "export",
    "validate_model_outputs",
]


def __getattr__(name: str) -> Any:
    """Import modules that load torch only when a name of theirs is used."""
    if name in ("export", "validate_model_outputs"):
        from hfexport.onnx import convert

        return getattr(convert, name)
    if name == "FeaturesManager":
        from hfexport.onnx.features import FeaturesManager

        return FeaturesManager
    if name.endswith("OnnxConfig"):
        from hfexport.onnx.known import onnx_config_classes

        classes = {found.__name__: found for found in onnx_config_classes().values()}
        if name in classes:
            return classes[name]
        raise AttributeError(f"module {__name__!r} has no {name}; it has {', '.join(sorted(classes))}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
