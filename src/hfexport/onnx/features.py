"""`FeaturesManager`: the features (tasks) that each architecture supports, and their model and config classes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from hfexport.errors import InputsError, UnsupportedError
from hfexport.export_config.builtin import known_architectures
from hfexport.export_config.tasks import TASK_NAMES, TASKS
from hfexport.modeling.user_class import OnnxConfig, OnnxConfigWithPast
from hfexport.onnx.known import KnownOnnxConfig, onnx_config_classes

__all__ = ["FeaturesManager", "UnknownFeatureError", "UnknownModelTypeError"]

Maker = Callable[[Any], OnnxConfig]
"""Creates an `OnnxConfig` from a model's config."""


class UnknownModelTypeError(UnsupportedError, KeyError):
    """No architecture has this name; a `KeyError`, as in `transformers.onnx`."""


class UnknownFeatureError(UnsupportedError, ValueError):
    """The architecture has no such feature; a `ValueError`, as in `transformers.onnx`."""


class FeaturesManager:
    """Look up features by architecture, and classes by feature, as hfexport supports them."""

    AVAILABLE_FEATURES: Final[list[str]] = sorted(TASK_NAMES)

    @staticmethod
    def get_supported_features_for_model_type(model_type: str, model_name: str | None = None) -> dict[str, Maker]:
        """Return every feature of an architecture, with a function that creates its `OnnxConfig`.

        Raises:
            UnknownModelTypeError: no architecture has this name.
        """
        name, known = model_type.lower(), onnx_config_classes()
        name = name if name in known else name.replace("-", "_")
        if name not in known:
            model = f"{model_type} ({model_name})" if model_name else model_type
            raise UnknownModelTypeError(
                f"{model} is not supported yet. Only {sorted(known)} are supported by name",
                remedy="hfexport --model also exports other architectures, by inferring their inputs and outputs.",
            )
        return {feature: _maker(known[name], feature) for feature in known_architectures()[name].tasks}

    @staticmethod
    def feature_to_task(feature: str) -> str:
        return feature.removesuffix("-with-past")

    @staticmethod
    def get_model_class_for_feature(feature: str, framework: str = "pt") -> Any:
        """Return the auto class of transformers that loads a model for `feature`.

        Raises:
            UnknownFeatureError: there is no such feature.
            InputsError: the framework is not PyTorch.
        """
        import transformers

        if framework != "pt":
            raise InputsError([f"framework is {framework!r}: models are exported with PyTorch only; use pt"])
        if feature not in TASKS:
            raise UnknownFeatureError(f"feature {feature!r} is not known", remedy=f"Known are: {', '.join(TASKS)}.")
        return getattr(transformers, TASKS[feature].auto_class)

    @staticmethod
    def determine_framework(model: str, framework: str | None = None) -> str:
        """Return `framework` or `pt`: TensorFlow checkpoints are loaded into PyTorch models."""
        del model
        return framework or "pt"

    @staticmethod
    def get_model_from_feature(
        feature: str, model: str, framework: str | None = None, cache_dir: str | None = None
    ) -> Any:
        """Load the model of a checkpoint folder or Hub id with the head for `feature`."""
        model_class = FeaturesManager.get_model_class_for_feature(feature, framework or "pt")
        local = {"local_files_only": True} if Path(model).is_dir() else {}
        return model_class.from_pretrained(model, cache_dir=cache_dir, **local)

    @staticmethod
    def check_supported_model_or_raise(model: Any, feature: str = "default") -> tuple[str, Maker]:
        """Return the model's type, and a function that creates its `OnnxConfig` for `feature`.

        Raises:
            UnknownModelTypeError: the architecture is unknown.
            UnknownFeatureError: the architecture has no such feature.
        """
        model_type = model.config.model_type
        return model_type, FeaturesManager.get_config(model_type, feature)

    @staticmethod
    def get_config(model_type: str, feature: str) -> Maker:
        """Return the function that creates the `OnnxConfig` of an architecture for `feature`."""
        features = FeaturesManager.get_supported_features_for_model_type(model_type)
        if feature not in features:
            raise UnknownFeatureError(
                f"{model_type} doesn't support feature {feature}", remedy=f"Supported are: {', '.join(features)}."
            )
        return features[feature]


def _maker(config_class: type[KnownOnnxConfig], feature: str) -> Maker:
    task = FeaturesManager.feature_to_task(feature)
    if task != feature and issubclass(config_class, OnnxConfigWithPast):
        return partial(config_class.with_past, task=task)
    return partial(config_class.from_model_config, task=feature)
