"""Choose the inputs on which variants are compared with the model: texts if the model reads tokens, else probes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hfexport.export_config import DecoderConfig, ExportConfig, Seq2SeqGraph, names_in
from hfexport.export_config.arrays import Arrays
from hfexport.export_config.probes import Probe, validation_probes
from hfexport.export_config.probes.values import make_inputs

__all__ = ["BATCH", "Case", "cases_for", "probe_cases", "reads_texts"]

BATCH: Final = 8
"""Number of texts in one call."""

LONGEST: Final = 64
"""Number of tokens to which a text is cut."""

PROMPT: Final = 8
"""Number of tokens with which a generation starts."""

STEPS: Final = 32
"""Number of tokens that are generated greedily."""

MAX_ELEMENTS: Final = 2 * 10**8
"""Limit of the number of logits of all texts, which are kept in files."""

_TOKENS = ("token_ids", "sentence_ids")
_FROM_TOKENS = (*_TOKENS, "attention_mask", "token_type_ids", "position_ids", "language_ids")
_CACHE = ("past_key", "past_value")


@dataclass(frozen=True)
class Case:
    """Inputs of one call, or of one generation.

    Attributes:
        probe: sizes, and the number of tokens to generate (0 for a call).
        inputs: arrays by name.
        real: the inputs are texts, and not drawn from a seed.
    """

    probe: Probe
    inputs: Arrays
    real: bool


def reads_texts(config: ExportConfig) -> bool:
    """Return whether all inputs of a graph, or of the graph that its generation starts with, follow from a text."""
    asked = config.prompt if _generates(config) else config
    roles = [spec.role for spec in asked.inputs if spec.role not in _CACHE]
    texts = [spec for spec in asked.inputs if spec.role in _TOKENS]
    return bool(texts) and all(role in _FROM_TOKENS for role in roles) and all(len(spec.axes) == 2 for spec in texts)


def cases_for(config: ExportConfig, tokens: Sequence[Sequence[int]], pad: int) -> list[Case]:
    """Return the cases of a graph for texts, given as token ids.

    Args:
        config: graph, for which `reads_texts` is true.
        tokens: token ids of each text.
        pad: id that fills shorter texts.
    """
    vocabulary = max(1, config.vocabulary_size)
    usable = [[token for token in text if token < vocabulary][: _longest(config)] for text in tokens]
    usable = [text for text in usable if text]
    cases: list[Case] = []
    if not isinstance(config, Seq2SeqGraph) or not _generates(config):
        kept = usable[: max(1, MAX_ELEMENTS // (vocabulary * LONGEST))] if _has_logits_of_words(config) else usable
        step = 1 if _batch_is_one(config) else BATCH
        starts = range(0, len(kept), step)
        cases += [_call(config, kept[start : start + step], pad, start) for start in starts]
    if _generates(config):
        cases.extend(_generations(config, usable, pad))
    return cases


def probe_cases(config: ExportConfig) -> list[Case]:
    """Return the probes of validation as cases."""
    return [Case(probe, probe.inputs(config, "fp32"), real=False) for probe in validation_probes(config)]


def _generates(config: ExportConfig) -> bool:
    return config.task.generates and any(spec.role == "past_key" for spec in config.inputs)


def _has_logits_of_words(config: ExportConfig) -> bool:
    return config.task.name.endswith(("-lm", "-lm-with-past"))


def _batch_is_one(config: ExportConfig) -> bool:
    limit = config.limits.get("batch")
    return limit is not None and limit.maximum == 1


def _longest(config: ExportConfig) -> int:
    """Return the number of tokens that fit into every axis of tokens, with room for those that are generated."""
    asked = config.prompt if _generates(config) else config
    longest = LONGEST
    for axis in _token_axes(asked):
        limit = asked.limits.get(axis)
        if limit is not None and limit.maximum is not None:
            longest = min(longest, limit.maximum)
    return max(1, longest)


def _token_axes(config: ExportConfig) -> list[str]:
    axes = [spec.axes[-1] for spec in config.inputs if spec.role in _TOKENS]
    return list(dict.fromkeys(names_in(axis)[-1] for axis in axes if isinstance(axis, str)))


def _call(config: ExportConfig, texts: Sequence[Sequence[int]], pad: int, seed: int) -> Case:
    length = max(map(len, texts))
    sizes = dict.fromkeys(config.free_axes, 0)
    sizes |= {"batch": len(texts), **dict.fromkeys(_token_axes(config), length)}
    probe = Probe(f"texts {seed + 1} to {seed + len(texts)}", sizes, "right", seed)
    return Case(probe, _filled(config, texts, pad, sizes, seed), real=True)


def _generations(config: ExportConfig, texts: Sequence[Sequence[int]], pad: int) -> list[Case]:
    """Return one generation for a batch of texts of equal length."""
    asked = config.prompt
    prompts = [list(text[:PROMPT]) for text in texts if len(text) >= PROMPT] or [list(text[:1]) for text in texts]
    prompts = prompts[:BATCH]
    steps = STEPS
    most = config.family.max_decoder_positions if isinstance(config, Seq2SeqGraph) else None
    if isinstance(config, DecoderConfig) and config.max_positions:
        most = config.max_positions - len(prompts[0])
    if most is not None:
        steps = min(steps, most)
    sizes = dict.fromkeys(asked.free_axes, 0) | {"batch": len(prompts)}
    sizes |= dict.fromkeys(_token_axes(asked), len(prompts[0]))
    if asked is config and isinstance(config, Seq2SeqGraph):
        sizes["decoder_sequence"] = 1
    probe = Probe(f"{steps} greedy tokens", sizes, "none", 0, steps)
    inputs = _filled(asked, prompts, pad, sizes, 0)
    if "decoder_input_ids" in inputs:
        inputs["decoder_input_ids"] = np.full((len(prompts), 1), config.start_token, np.int64)
    return [Case(probe, inputs, real=True)]


def _filled(
    config: ExportConfig, texts: Sequence[Sequence[int]], pad: int, sizes: Mapping[str, int], seed: int
) -> Arrays:
    """Return the inputs of a graph for texts, padded on the right."""
    length = max(map(len, texts))
    mask = np.array([[1] * len(text) + [0] * (length - len(text)) for text in texts], np.int64)
    ids = np.array([[*text, *[pad] * (length - len(text))] for text in texts], np.int64)
    positions = np.where(mask == 0, 1, np.cumsum(mask, axis=-1) - 1)
    by_role: Mapping[str, Callable[[], NDArray[np.int64]]] = {
        "token_ids": ids.copy,
        "sentence_ids": ids.copy,
        "attention_mask": mask.copy,
        "token_type_ids": lambda: np.zeros_like(ids),
        "position_ids": positions.copy,
    }
    arrays = make_inputs(config, sizes, "fp32", seed=seed)
    for spec in config.inputs:
        fill = by_role.get(spec.role)
        if fill is not None and arrays[spec.name].shape == ids.shape:
            arrays[spec.name] = fill()
    return arrays
