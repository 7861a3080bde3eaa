"""Find the names of a model's weights without prefixes that wrappers added."""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping
from pathlib import Path
from typing import Any

from hfexport.checkpoint.wrapped_names import UnwrappedNames, leading_part, unwrap_names
from hfexport.errors import CheckpointError

__all__ = ["unwrapped_names"]


def unwrapped_names(folder: Path, config: Mapping[str, Any], names: Collection[str]) -> UnwrappedNames:
    """Remove what wrappers added to the names of a checkpoint's weights.

    Torch is imported, and the model built without data, only if the names start differently from the model's.

    Args:
        folder: folder with config.json.
        config: content of config.json.
        names: names of the weights.

    Raises:
        CheckpointError: two names become equal.
    """

    def model_names(plain: Collection[str]) -> Container[str] | None:
        return _model_names(folder, config, leading_part(plain), plain)

    return unwrap_names(names, model_names)


class _Taken:
    """The names of weights that a model takes: its own, with and without its base prefix, and those it renames."""

    def __init__(self, model: Any) -> None:
        from hfexport._internal.upstream.models import loader_placing

        self._weights = model.state_dict()
        self._base = f"{model.base_model_prefix}."
        self._place = loader_placing(model)
        has_base = any(name.startswith(self._base) for name in self._weights)
        other = (name.removeprefix(self._base) if has_base else self._base + name for name in self._weights)
        self._names = {*self._weights, *other}

    def __contains__(self, name: object) -> bool:
        if name in self._names:
            return True
        placed = self._place(name, self._weights)
        # The base prefix alone is no renaming: the loader also drops a wrapper's prefix if it is called the same.
        changed = placed not in (str(name).removeprefix(self._base), f"{self._base}{name}")
        return changed and placed in self._weights


def _model_names(folder: Path, config: Mapping[str, Any], part: str, names: Collection[str]) -> Container[str] | None:
    """Return the names that the model takes; `None` if `part` is its base prefix."""
    if not part:
        return None
    import transformers

    architecture = next(iter(config.get("architectures") or ()), "")
    model_class: Any = getattr(transformers, str(architecture), None)
    base = str(getattr(model_class, "base_model_prefix", ""))
    if part == base and not any(name.startswith(f"{part}.{part}.") for name in names):
        return None
    try:
        from hfexport.modeling.load import quiet
        from hfexport.modeling.untrusted_config import bounded, read_model_config

        model_config = read_model_config(folder)
        with quiet(), bounded(folder / "config.json"):
            model = _on_meta(model_class, model_config)
    except (CheckpointError, ImportError):
        return None  # an error in the config is reported when the model is needed
    return _Taken(model)


def _on_meta(model_class: Any, model_config: Any) -> Any:
    import torch
    import transformers

    with torch.device("meta"):
        if isinstance(model_class, type) and issubclass(model_class, transformers.PreTrainedModel):
            return model_class(model_config)
        return transformers.AutoModel.from_config(model_config)  # type: ignore[no-untyped-call]
