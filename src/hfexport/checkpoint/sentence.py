"""Read the modules after the transformer of a sentence-transformers folder: modules.json and the configs it names.

Format: https://sbert.net/docs/package_reference/sentence_transformer/models.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hfexport.checkpoint.contained import file_below, file_in
from hfexport.checkpoint.json_file import read_json
from hfexport.checkpoint.sentence_folder import MODULES_FILE, Module, read_modules
from hfexport.errors import CheckpointError, UnsupportedError
from hfexport.export_config.sentence import ACTIVATIONS, POOLING_MODES, Dense, SentenceModules, Splade

__all__ = ["bare_task", "read_sentence_modules"]

_KEYS: Final = {
    **{"cls": "pooling_mode_cls_token", "max": "pooling_mode_max_tokens", "mean": "pooling_mode_mean_tokens"},
    **{"mean_sqrt_len": "pooling_mode_mean_sqrt_len_tokens", "weightedmean": "pooling_mode_weightedmean_tokens"},
    "lasttoken": "pooling_mode_lasttoken",
}
"""Key of each pooling mode in the config of a Pooling module."""

_DEFAULT: Final = "mean"
"""The only mode that is on by default; all others are off unless their key is set."""

_SPLADE: Final = "SpladePooling"


def read_sentence_modules(folder: Path) -> SentenceModules:
    """Return the modules after the transformer of a sentence-transformers folder.

    Raises:
        CheckpointError: the folder has no modules.json, or a file that it names is missing or invalid.
        UnsupportedError: hfexport cannot export a module, a mode or their order.
    """
    path = folder / MODULES_FILE
    if file_in(folder, MODULES_FILE) is None:
        raise CheckpointError(
            f"{folder}: has no {MODULES_FILE}, which defines how token embeddings become a sentence embedding",
            remedy="Give a sentence-transformers folder, or export another task, such as default.",
        )
    modules = read_modules(path)
    behind = [module for module in modules[1:] if module.kind not in ("Dropout", "Normalize")]
    normalizes = [module.kind == "Normalize" for module in modules]
    dense = [module for module in behind if module.kind == "Dense"]
    kinds = [module.kind for module in behind]
    fits = modules[:1] and modules[0].kind in ("Transformer", "MLMTransformer") and True not in normalizes[1:-1]
    truncate_dim = _truncate_dim(folder)
    if fits and kinds == [_SPLADE] and not any(normalizes):
        return SentenceModules((), truncate_dim=truncate_dim, splade=_splade(_named(folder, behind[0], "config.json")))
    if not fits or modules[0].kind != "Transformer" or kinds != ["Pooling", *["Dense"] * len(dense)]:
        raise _unsupported(path, f"modules are {', '.join(module.kind for module in modules)}")
    return SentenceModules(
        _pooling(_named(folder, behind[0], "config.json"), folder),
        tuple(_dense(folder, module) for module in dense),
        normalizes[-1],
        truncate_dim,
    )


def bare_task(folder: Path) -> str:
    """Return the task for which sentence-transformers loads the transformer of a folder; empty for other folders.

    Returns:
        `masked-lm` if SPLADE pools the logits, `default` if hidden states are pooled, otherwise an empty string.
    """
    path = folder / MODULES_FILE
    if not path.is_file():
        return ""
    try:
        modules: Sequence[Module] = read_modules(path)
    except CheckpointError:
        return ""
    kinds = [module.kind for module in modules]
    if kinds[:1] not in (["Transformer"], ["MLMTransformer"]):
        return ""
    return "masked-lm" if _SPLADE in kinds else "default" if "Pooling" in kinds else ""


def _pooling(path: Path, folder: Path) -> tuple[str, ...]:
    config = read_json(path)
    if config.get("include_prompt") is False and (prompts := _prompts(folder)):
        raise _unsupported(
            path,
            f"the tokens of a prompt are left out of the pooling (include_prompt is false), and the folder has prompts"
            f" ({', '.join(prompts[:3])}); a graph cannot know how long one is",
        )
    modes = _named_modes(config.get("pooling_mode"))
    if modes is None:
        keys = {key for key, value in config.items() if key.startswith("pooling_mode_") and value}
        if config.get(_KEYS[_DEFAULT]) is None:
            keys.add(_KEYS[_DEFAULT])
        modes = {next((mode for mode, own in _KEYS.items() if own == key), key) for key in keys}
    if not modes or not modes <= set(POOLING_MODES):
        raise _unsupported(path, f"pooling is {', '.join(sorted(modes)) or 'of no mode'}")
    return tuple(mode for mode in POOLING_MODES if mode in modes)


def _named_modes(named: Any) -> set[str] | None:
    """Parse pooling modes by name, as in newer configs: one name, several joined by `+`, or a list."""
    if isinstance(named, str):
        named = named.split("+")
    if not isinstance(named, list):
        return None
    return {str(mode).lower().removesuffix("_tokens").removesuffix("_token") for mode in named}


def _prompts(folder: Path) -> list[str]:
    """Return the names of a folder's prompts that are not empty."""
    prompts = _settings(folder).get("prompts")
    return sorted(str(name) for name, text in prompts.items() if text) if isinstance(prompts, Mapping) else []


def _truncate_dim(folder: Path) -> int | None:
    value = _settings(folder).get("truncate_dim")
    if value is None:
        return None
    if type(value) is not int or value < 1:
        raise CheckpointError(
            f"{folder / 'config_sentence_transformers.json'}: `truncate_dim` is {value!r}, not a number of values",
            remedy="Correct it, or take it out.",
        )
    return value


def _settings(folder: Path) -> Mapping[str, Any]:
    path = file_in(folder, "config_sentence_transformers.json")
    return {} if path is None else read_json(path)


def _splade(path: Path) -> Splade:
    config = read_json(path)
    strategy, activation = config.get("pooling_strategy", "max"), config.get("activation_function", "relu")
    if strategy not in ("max", "sum") or activation not in ("relu", "log1p_relu"):
        raise _unsupported(path, f"pooling is {strategy} of {activation}")
    return Splade(strategy, activation == "log1p_relu")


def _named(folder: Path, module: Module, name: str) -> Path:
    """Return the path of a module's file, which must be below the folder."""
    path = file_below(folder, f"{module.place}/{name}".lstrip("/"), named_by=MODULES_FILE)
    return folder / module.place / name if path is None else path


def _dense(folder: Path, module: Module) -> Dense:
    config = read_json(_named(folder, module, "config.json"))
    place = folder / module.place
    activation = str(config.get("activation_function", "Tanh")).rpartition(".")[2]
    if activation not in ACTIVATIONS:
        raise _unsupported(place / "config.json", f"activation is {activation}")
    for key in ("module_input_name", "module_output_name"):
        if (name := config.get(key, "sentence_embedding")) != "sentence_embedding":
            raise _unsupported(place / "config.json", f"`{key}` is {name}")
    for file in (_named(folder, module, name) for name in ("model.safetensors", "pytorch_model.bin")):
        if file.is_file():
            return Dense(str(file.resolve()), activation)
    raise CheckpointError(
        f"{place}: has neither model.safetensors nor pytorch_model.bin", remedy="Add the weights of the Dense layer."
    )


def _unsupported(path: Path, what: str) -> UnsupportedError:
    return UnsupportedError(
        f"{path}: {what}",
        remedy="A graph can hold pooling ("
        + ", ".join(POOLING_MODES)
        + ", or SpladePooling), dense layers and normalisation, in this order;"
        " export task default, or masked-lm for SPLADE, and do the rest outside.",
    )
