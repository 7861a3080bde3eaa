"""Reads what lies behind the transformer in a sentence-transformers folder: modules.json and the configs it names.

The format is that of https://sbert.net/docs/package_reference/sentence_transformer/models.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hfexport.checkpoint.json_file import read_json
from hfexport.errors import CheckpointError, UnsupportedError
from hfexport.export_config.sentence import ACTIVATIONS, POOLING_MODES, Dense, SentenceModules

__all__ = ["MODULES_FILE", "read_sentence_modules"]

MODULES_FILE = "modules.json"

_OLDER_KEYS = {"cls": "cls_token", "max": "max_tokens", "mean": "mean_tokens", "mean_sqrt_len": "mean_sqrt_len_tokens"}
"""Parts of the keys `pooling_mode_…` that are not the mode's own name."""


def read_sentence_modules(folder: Path) -> SentenceModules:
    """What a sentence-transformers folder does behind its transformer.

    Raises:
        CheckpointError: the folder has no modules.json, or a file that it names is missing or makes no sense.
        UnsupportedError: it has a module, a mode or an order that hfexport cannot put into a graph.
    """
    path = folder / MODULES_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{folder}: has no {MODULES_FILE}, so nothing says how token embeddings become a sentence's",
            remedy="Give a sentence-transformers folder, or export another task, such as default.",
        )
    modules = [(str(entry["type"]).rpartition(".")[2], folder / str(entry["path"])) for entry in _entries(path)]
    kinds = [kind for kind, _ in modules]
    behind = [module for module in modules[1:] if module[0] != "Dropout"]
    order = [kind for kind, _ in behind]
    dense = [place for kind, place in behind if kind == "Dense"]
    if kinds[:1] != ["Transformer"] or order != ["Pooling", *["Dense"] * len(dense), *order[len(dense) + 1 :]]:
        raise _unsupported(path, f"modules are {', '.join(kinds)}")
    if order[len(dense) + 1 :] not in ([], ["Normalize"]):
        raise _unsupported(path, f"modules are {', '.join(kinds)}")
    return SentenceModules(
        _pooling(behind[0][1] / "config.json"), tuple(_dense(place) for place in dense), order[-1] == "Normalize"
    )


def _entries(path: Path) -> Sequence[Mapping[str, Any]]:
    try:
        entries = json.loads(path.read_bytes())
    except ValueError as error:
        raise CheckpointError(f"{path}: is not valid JSON: {error}", remedy="Correct or restore the file.") from error
    fits = isinstance(entries, list) and all(
        isinstance(entry, dict) and {"type", "path"} <= set(entry) for entry in entries
    )
    if not fits or not all(_inside(str(entry["path"])) for entry in entries):
        raise CheckpointError(f"{path}: is no list of modules with type and path", remedy="Restore the file.")
    return entries  # type: ignore[no-any-return]


def _inside(place: str) -> bool:
    return not place.startswith(("/", "\\")) and ".." not in Path(place).parts


def _pooling(path: Path) -> tuple[str, ...]:
    config = read_json(path)
    if config.get("include_prompt") is False:
        raise _unsupported(path, "prompts are left out of the pooling, and a graph cannot know how long one is")
    if isinstance(named := config.get("pooling_mode"), str):
        modes = set(named.split("+"))
    else:
        keys = {mode: f"pooling_mode_{_OLDER_KEYS.get(mode, mode)}" for mode in POOLING_MODES}
        modes = {mode for mode, key in keys.items() if config.get(key)}
    if not modes or not modes <= set(POOLING_MODES):
        raise _unsupported(path, f"pooling is {', '.join(sorted(modes)) or 'of no mode'}")
    return tuple(mode for mode in POOLING_MODES if mode in modes)


def _dense(place: Path) -> Dense:
    activation = str(read_json(place / "config.json").get("activation_function", "Tanh")).rpartition(".")[2]
    if activation not in ACTIVATIONS:
        raise _unsupported(place / "config.json", f"activation is {activation}")
    file = place / "model.safetensors"
    if not file.is_file():
        raise CheckpointError(
            f"{file}: is missing", remedy="Save the model anew with sentence-transformers, which writes safetensors."
        )
    return Dense(str(file.resolve()), activation)


def _unsupported(path: Path, what: str) -> UnsupportedError:
    return UnsupportedError(
        f"{path}: {what}",
        remedy="A graph can hold pooling ("
        + ", ".join(POOLING_MODES)
        + "), dense layers and normalisation, in this order;"
        " export task default and do the rest outside.",
    )
