"""Find the names of a model's weights without prefixes that wrappers added."""

from __future__ import annotations

from collections.abc import Collection, Mapping
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

    def model_names(plain: Collection[str]) -> Collection[str]:
        return _model_names(folder, config, leading_part(plain), plain)

    return unwrap_names(names, model_names)


def _model_names(folder: Path, config: Mapping[str, Any], part: str, names: Collection[str]) -> Collection[str]:
    """Return the names that the model takes, with and without its base prefix; empty if `part` is that prefix."""
    if not part:
        return ()
    import transformers

    architecture = next(iter(config.get("architectures") or ()), "")
    model_class: Any = getattr(transformers, str(architecture), None)
    base = str(getattr(model_class, "base_model_prefix", ""))
    if part == base and not any(name.startswith(f"{part}.{part}.") for name in names):
        return ()
    try:
        from hfexport.modeling.load import quiet
        from hfexport.modeling.untrusted_config import bounded, read_model_config

        model_config = read_model_config(folder)
        with quiet(), bounded(folder / "config.json"):
            model = _on_meta(model_class, model_config)
    except (CheckpointError, ImportError):
        return ()  # an error in the config is reported when the model is needed
    own = set(model.state_dict())
    base = str(model.base_model_prefix)
    if any(name.startswith(f"{base}.") for name in own):
        return own | {name.removeprefix(f"{base}.") for name in own}
    return own | {f"{base}.{name}" for name in own}


def _on_meta(model_class: Any, model_config: Any) -> Any:
    import torch
    import transformers

    with torch.device("meta"):
        if isinstance(model_class, type) and issubclass(model_class, transformers.PreTrainedModel):
            return model_class(model_config)
        return transformers.AutoModel.from_config(model_config)  # type: ignore[no-untyped-call]
