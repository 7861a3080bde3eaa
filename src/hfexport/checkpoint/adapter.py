"""Adapter folders saved by the `peft` library: a few weights that change a base model. Torch-free.

Format: https://huggingface.co/docs/peft/developer_guides/checkpoint
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hfexport.checkpoint.contained import file_in
from hfexport.checkpoint.json_file import read_json
from hfexport.checkpoint.lfs import refuse_pointer
from hfexport.checkpoint.local import files_along, transformer_folder
from hfexport.checkpoint.model_id import is_hub_id
from hfexport.errors import CheckpointError

__all__ = ["ADAPTER_CONFIG", "Adapter", "base_of", "find_adapter"]

ADAPTER_CONFIG: Final = "adapter_config.json"

_REFUSED: Final = ("megatron_config",)
"""Settings that make `peft` import a module of the adapter's choice."""


@dataclass(frozen=True)
class Adapter:
    """An adapter whose files were checked; its weights were not read.

    Attributes:
        folder: folder of the adapter.
        config: content of adapter_config.json.
        weights: safetensors or torch file of the adapter.
        base: base model, as the adapter names it.
        revision: revision of the base on the Hub; `None` if the adapter names none.
        along: tokenizer and processor files and sentence-transformers modules of the adapter, which replace those of
            the base in the output; paths by output path.
    """

    folder: Path
    config: Mapping[str, Any]
    weights: Path
    base: str
    revision: str | None
    along: Mapping[str, Path] = field(default_factory=dict)

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.folder / ADAPTER_CONFIG, self.weights)

    @property
    def kind(self) -> str:
        """Return the adapter type as `peft` names it, such as `LORA`."""
        return str(self.config.get("peft_type"))


def find_adapter(folder: Path) -> Adapter | None:
    """Return the adapter in a folder; `None` if there is none.

    As in transformers, a folder with an adapter is that adapter, even if it holds other weights. In a
    sentence-transformers folder, the adapter may be in the transformer's folder.

    Raises:
        CheckpointError: the adapter is damaged or asks for an unsupported operation.
    """
    if not folder.is_dir():
        return None
    root, folder = folder, transformer_folder(folder)
    path = file_in(folder, ADAPTER_CONFIG)
    if path is None:
        return None
    config = read_json(path)
    weights = file_in(folder, "adapter_model.safetensors") or file_in(folder, "adapter_model.bin")
    if weights is None:
        raise CheckpointError(
            f"{folder}: has {ADAPTER_CONFIG}, but neither adapter_model.safetensors nor adapter_model.bin",
            remedy="Add the adapter's weights, or remove its config if this is a whole model.",
        )
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(config.get("peft_type"), str) or not isinstance(base, str | None) or base == "":
        raise CheckpointError(
            f"{path}: is no adapter's config: `peft_type` is {config.get('peft_type')!r}, the base {base!r}",
            remedy="Use the file that `save_pretrained` of peft wrote.",
        )
    if refused := [name for name in _REFUSED if config.get(name)]:
        raise CheckpointError(f"{path}: asks for `{refused[0]}`, which hfexport does not follow")
    along = {name: path for name, path in files_along(root, folder).items() if name != "config.json"}
    for beside in along.values():
        refuse_pointer(beside)
    return Adapter(
        folder, config, weights, base or "", revision if isinstance(revision, str) and revision else None, along
    )


def base_of(adapter: Adapter, given: str | None) -> tuple[str, str]:
    """Return the base of an adapter and its revision on the Hub.

    Args:
        adapter: adapter to look up.
        given: base given by the user, which replaces that of the adapter.

    Raises:
        CheckpointError: the adapter names no base, or a folder on the machine that made it.
    """
    if given is not None:
        return given, "main"
    config = adapter.folder / ADAPTER_CONFIG
    if not adapter.base:
        raise CheckpointError(f"{config}: names no base", remedy="Name it with base-model.")
    if is_hub_id(adapter.base):
        return adapter.base, adapter.revision or "main"
    if not Path(adapter.base).resolve().is_relative_to(Path.cwd()):
        raise CheckpointError(
            f"{config}: names the base {adapter.base!r}, which lies outside of the working directory",
            remedy="If that is the right one, name it with base-model.",
        )
    return adapter.base, "main"
