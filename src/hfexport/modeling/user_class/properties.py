"""Read the properties of a user's class one by one, and check each value."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from hfexport.errors import MODEL_FAILURES, InputsError
from hfexport.modeling.user_class.onnx_config import OnnxConfig

__all__ = ["Properties", "config_values"]


def config_values(own: OnnxConfig, origin: str) -> dict[str, Any]:
    """Return values of the model's config that `own` overrides and with which the model must be built.

    Raises:
        InputsError: the model's config does not have these values.
    """
    return Properties(own, origin).config_values()


class Properties:
    """Read the properties of a user's class and check each value."""

    def __init__(self, own: OnnxConfig, origin: str) -> None:
        self._own = own
        self._origin = origin

    def wrong(self, field: str, what: str) -> InputsError:
        return InputsError([f"{self._origin}: {field}: {what}"])

    def read(self, field: str) -> Any:
        """Read a property of the class; its code may raise."""
        try:
            return getattr(self._own, field)
        except MODEL_FAILURES as error:
            raise self.wrong(field, f"raises {type(error).__name__}: {error}") from error

    def number(self, field: str) -> float:
        value = self.read(field)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise self.wrong(field, f"must be a number of 0 or more, and is {value!r}")
        return value

    def config_values(self) -> dict[str, Any]:
        """Return the class's replacements for values of the model's config."""
        values = self.read("values_override")
        if values is None:
            return {}
        if not isinstance(values, Mapping):
            raise self.wrong("values_override", f"must map names of the model's config to values, and is {values!r}")
        for name, value in values.items():
            if not isinstance(name, str) or not hasattr(self._own._config, name):
                kind = type(self._own._config).__name__
                raise self.wrong("values_override", f"{name!r} is nothing that {kind} has")
            try:
                json.dumps(value)
            except (TypeError, ValueError) as error:
                raise self.wrong("values_override", f"{name!r} is {value!r}, which JSON cannot hold") from error
        return dict(values)

    def axes(self, field: str) -> dict[str, dict[int, str]]:
        tensors = self.read(field)
        if not isinstance(tensors, Mapping) or not tensors:
            raise self.wrong(field, f"must map names to axes, and is {tensors!r}")
        for name, axes in tensors.items():
            fits = isinstance(axes, Mapping) and all(
                isinstance(index, int) and index >= 0 and isinstance(axis, str) for index, axis in axes.items()
            )
            if not isinstance(name, str) or not fits:
                raise self.wrong(field, f"{name!r} must map the index of each free axis to a name, and has {axes!r}")
        return {name: dict(axes) for name, axes in tensors.items()}
