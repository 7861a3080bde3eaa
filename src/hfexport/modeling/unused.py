"""Find tensors of a checkpoint that the model does not take: known to be left out, or unexpected.

`from_pretrained` drops such a tensor in both the export and the reference, so that comparing outputs cannot reveal it.
"""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from hfexport.errors import CheckpointError

if TYPE_CHECKING:
    from hfexport.checkpoint import Checkpoint
    from hfexport.checkpoint.safetensors_header import TensorInfo
    from hfexport.export_config import ExportConfig

__all__ = ["Unused", "find_unused", "refuse_unused", "unused_tensors"]

_STORED: Final = re.compile(
    r"(^|\.)(position_ids|token_type_ids|relative_position_index|inv_freq|masked_bias|num_batches_tracked|version"
    r"|_float_tensor|masked_spec_embed|mask_token)$|(^|\.)pooler\."
)
"""Poolers, constants that earlier versions of transformers stored, and input masks used only in training."""

_CAUSAL_MASK: Final = re.compile(r"(^|\.)(attn|attention|crossattention|self_attn)\.bias$")
"""A stored causal mask of shape (1, 1, positions, positions)."""

_MAX_LISTED: Final = 10


@dataclass(frozen=True)
class Unused:
    """Names of tensors that the model does not take, as the checkpoint has them.

    Attributes:
        left_out: tensors that the task is known to leave out.
        unexpected: tensors without a known reason.
    """

    left_out: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()


def find_unused(
    checkpoint: Checkpoint, config: ExportConfig, dtype: str, allowed: Sequence[str], note: Callable[[str], None]
) -> tuple[str, ...]:
    """Return all tensors of a checkpoint that are not exported, sorted, and report them to `note`.

    Raises:
        CheckpointError: a tensor is neither known to be left out nor allowed (see `refuse_unused`).
    """
    unused = refuse_unused(unused_tensors(checkpoint, config, dtype), allowed)
    if unused:
        note(f"Tensors of the checkpoint that are not in the model: {', '.join(unused)}")
    return unused


def unused_tensors(checkpoint: Checkpoint, config: ExportConfig, dtype: str) -> Unused:
    """Find the tensors of a checkpoint that the model does not take. Names are mapped as `from_pretrained` maps them.

    Args:
        checkpoint: checkpoint of safetensors.
        config: export config of the model.
        dtype: `fp32` or `fp16`.
    """
    from hfexport.modeling.load import model_without_data

    model = model_without_data(config, dtype)
    strays = _strays(model, checkpoint.tensors)
    if not strays:
        return Unused()
    ignored = [re.compile(str(pattern)) for pattern in getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()]
    buffers = {name for name, _ in model.named_buffers()}
    unknown = [
        name
        for name, renamed in strays.items()
        if renamed not in buffers
        and not _is_stored_constant(name, checkpoint.tensors[name])
        and not any(pattern.search(renamed) for pattern in ignored)
    ]
    for prefix, other in _other_models(model, config.config) if unknown else ():
        below = {name.removeprefix(prefix): name for name in unknown if name.startswith(prefix)}
        still = _strays(other, below)
        unknown = [name for name in unknown if not name.startswith(prefix) or name.removeprefix(prefix) in still]
        if not unknown:
            break
    return Unused(tuple(sorted(strays.keys() - set(unknown))), tuple(sorted(unknown)))


def refuse_unused(unused: Unused, allowed: Sequence[str]) -> tuple[str, ...]:
    """Return all tensors that are not exported, sorted.

    Args:
        unused: unused tensors of the checkpoint.
        allowed: shell-style patterns of names that may be left out.

    Raises:
        CheckpointError: a tensor is neither known to be left out nor allowed.
    """
    refused = [name for name in unused.unexpected if not any(fnmatchcase(name, pattern) for pattern in allowed)]
    if refused:
        count = f"{len(refused)} tensors that the model has" if len(refused) > 1 else "a tensor that the model has"
        raise CheckpointError(
            f"the checkpoint has {count} no place for: {_listed(refused)}",
            remedy="Use the config.json and the model class that these weights were trained with; or, if the model is right"
            " without them, name them with --allow-unused (patterns such as '*.age_head.*', separated by commas).",
        )
    return tuple(sorted({*unused.left_out, *unused.unexpected}))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(names[:_MAX_LISTED]) + more


def _strays(model: Any, names: Iterable[str]) -> dict[str, str]:
    """Return the names that the model has no place for, each with the name that was looked up."""
    from hfexport._internal.upstream.models import loader_placing

    wanted = model.state_dict()
    place = loader_placing(model)
    placed = {name: name if name in wanted else place(name, wanted) for name in sorted(names)}
    return {name: renamed for name, renamed in placed.items() if renamed not in wanted}


def _is_stored_constant(name: str, info: TensorInfo) -> bool:
    if _STORED.search(name):
        return True
    return bool(_CAUSAL_MASK.search(name)) and len(info.shape) == 4 and info.shape[:2] == (1, 1)


def _other_models(model: Any, config: Any) -> Iterator[tuple[str, Any]]:
    """Yield models of the architecture's other tasks on the meta device, with the prefix of their weights' names.

    The parts of a composed model are treated as architectures.
    """
    import torch
    import transformers

    from hfexport.modeling.load import quiet
    from hfexport.modeling.untrusted_config import BUILD_FAILURES

    parts: Mapping[tuple[str, type], Any] = {
        (f"{name}." if name else "", type(part.config)): part
        for name, part in model.named_modules()
        if isinstance(part, transformers.PreTrainedModel)
    }
    for (prefix, _), part in parts.items():
        configs = {type(found): found for found in (part.config, *(() if prefix else (config,)))}
        for model_class in vars(sys.modules[type(part).__module__]).values():
            if not (isinstance(model_class, type) and issubclass(model_class, transformers.PreTrainedModel)):
                continue
            found = configs.get(getattr(model_class, "config_class", None))  # type: ignore[arg-type]
            if found is None or model_class is type(part):
                continue
            try:
                with quiet(), torch.device("meta"):
                    other = model_class._from_config(copy.deepcopy(found))  # type: ignore[no-untyped-call]
            except BUILD_FAILURES:
                continue  # a class that this config does not describe, such as an abstract one
            yield prefix, other
