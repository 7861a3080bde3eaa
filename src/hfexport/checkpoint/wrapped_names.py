"""Remove prefixes that wrappers add to the names of weights, such as `_orig_mod.` of `torch.compile`. Torch-free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from hfexport.errors import CheckpointError

__all__ = ["UnwrappedNames", "leading_part", "unwrap_names"]

_WRAPPERS: Final = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
"""Attributes in which `torch.compile`, FSDP, activation checkpointing and Lightning keep a module, at any depth."""

_MAX_LEADING: Final = 4


@dataclass(frozen=True)
class UnwrappedNames:
    """Names of weights without the prefixes of wrappers.

    Attributes:
        names: name in the model, by name in the file.
        removed: removed prefixes, such as `module.`, in order of appearance.
    """

    names: Mapping[str, str]
    removed: tuple[str, ...]


def unwrap_names(
    names: Collection[str], model_names: Callable[[Collection[str]], Container[str] | None]
) -> UnwrappedNames:
    """Remove the prefixes of wrappers from the names of a model's weights.

    Parts that only wrappers use (`_orig_mod`) are removed at any depth, and `module.` if all names start with it. Any
    other leading part, such as Lightning's `model.`, is removed only if more names then match the model.

    Args:
        names: names of the weights in the file.
        model_names: returns the names of the model's weights for names without those parts; `None` if they are unknown
            or if the names already look like the model's.

    Raises:
        CheckpointError: two names become equal.
    """
    plain = {name: ".".join(part for part in name.split(".") if part not in _WRAPPERS) for name in names}
    removed = [f"{part}." for part in _WRAPPERS if any(part in name.split(".") for name in names)]
    while plain and all(name.startswith("module.") for name in plain.values()):
        plain = {name: short.removeprefix("module.") for name, short in plain.items()}
        removed.insert(0, "module.")
    prefix = _leading_prefix(plain.values(), model_names(set(plain.values())))
    if prefix:
        plain = {name: short.removeprefix(prefix) for name, short in plain.items()}
        removed.append(prefix)
    if len(set(plain.values())) < len(plain):
        short, _ = Counter(plain.values()).most_common(1)[0]
        twice = sorted(name for name, other in plain.items() if other == short)
        raise CheckpointError(
            f"two of its weights are {short!r} in the model: {twice[0]} and {twice[1]}",
            remedy="Save the state dict of the model itself, without the wrapper.",
        )
    return UnwrappedNames(plain, tuple(dict.fromkeys(removed)))


def leading_part(names: Iterable[str]) -> str:
    """Return the first part of the names if nine in ten share it; empty otherwise."""
    counts = Counter(name.partition(".")[0] for name in names if "." in name)
    if not counts:
        return ""
    part, count = counts.most_common(1)[0]
    return part if count >= 0.9 * counts.total() else ""


def _leading_prefix(names: Collection[str], wanted: Container[str] | None) -> str:
    """Return the leading parts to remove so that most names are in `wanted`; empty if they already are."""
    if wanted is None:
        return ""
    best, most = "", sum(name in wanted for name in names)
    prefix, rest = "", list(names)
    for _ in range(_MAX_LEADING):
        part = leading_part(rest)
        if not part:
            break
        prefix += f"{part}."
        rest = [name.removeprefix(f"{part}.") for name in rest if name.startswith(f"{part}.")]
        found = sum(name in wanted for name in rest)
        if found > most and 2 * found > len(names):
            best, most = prefix, found
    return best
