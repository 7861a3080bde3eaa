"""Choose the inputs on which variants are compared with the model: texts, images or sounds, else probes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hfexport.export_config import DecoderConfig, ExportConfig, Seq2SeqGraph, TensorSpec, axis_size, names_in
from hfexport.export_config.arrays import Arrays
from hfexport.export_config.probes import Probe, validation_probes
from hfexport.export_config.probes.values import make_inputs

__all__ = ["BATCH", "Case", "Tokens", "cases_for", "longest", "media_cases", "probe_cases", "reads_texts"]

BATCH: Final = 8
"""Number of texts in one call."""

LONGEST: Final = 64
"""Number of tokens to which a text is cut."""

LONGEST_PAIR: Final = 128
"""Number of tokens to which a pair of texts is cut."""

PROMPT: Final = 8
"""Number of tokens with which a generation starts."""

STEPS: Final = 32
"""Number of tokens that are generated greedily."""

MAX_ELEMENTS: Final = 2 * 10**8
"""Limit of the number of logits of all texts, which are kept in files."""

_TOKENS = ("token_ids", "sentence_ids")
_FROM_TOKENS = (*_TOKENS, "attention_mask", "token_type_ids", "position_ids", "language_ids")
_CACHE = ("past_key", "past_value")
_MASKS = ("attention_mask", "pixel_mask")


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


@dataclass(frozen=True)
class Tokens:
    """A tokenised text, or pair of texts.

    Attributes:
        ids: token ids.
        types: token types; 0 for those of the first text.
    """

    ids: tuple[int, ...]
    types: tuple[int, ...]

    def below(self, vocabulary: int) -> Tokens:
        """Return the tokens that a model of this vocabulary knows."""
        kept = [(token, kind) for token, kind in zip(self.ids, self.types, strict=True) if token < vocabulary]
        return Tokens(tuple(token for token, _ in kept), tuple(kind for _, kind in kept))

    def cut(self, length: int) -> Tokens:
        """Return the first tokens."""
        return Tokens(self.ids[:length], self.types[:length])


def reads_texts(config: ExportConfig) -> bool:
    """Return whether all inputs of a graph, or of the graph that its generation starts with, follow from a text."""
    asked = config.prompt if _generates(config) else config
    roles = [spec.role for spec in asked.inputs if spec.role not in _CACHE]
    texts = [spec for spec in asked.inputs if spec.role in _TOKENS]
    return bool(texts) and all(role in _FROM_TOKENS for role in roles) and all(len(spec.axes) == 2 for spec in texts)


def cases_for(config: ExportConfig, tokens: Sequence[Tokens], pad: int) -> list[Case]:
    """Return the cases of a graph for texts.

    Args:
        config: graph, for which `reads_texts` is true.
        tokens: each text, or pair of texts.
        pad: id that fills shorter texts.
    """
    vocabulary = max(1, config.vocabulary_size)
    most = longest(config, pairs=True)
    usable = [text.below(vocabulary).cut(most) for text in tokens]
    usable = [text for text in usable if text.ids]
    cases: list[Case] = []
    if not isinstance(config, Seq2SeqGraph) or not _generates(config):
        kept = usable[: max(1, MAX_ELEMENTS // (vocabulary * LONGEST))] if _has_logits_of_words(config) else usable
        step = 1 if _batch_is_one(config) else BATCH
        starts = range(0, len(kept), step)
        cases += [_call(config, kept[start : start + step], pad, start) for start in starts]
    if _generates(config):
        cases.extend(_generations(config, usable, pad))
    return cases


def media_cases(config: ExportConfig, samples: Sequence[Arrays]) -> list[Case]:
    """Return the cases of a graph for images or sounds; none if it has inputs that do not follow from them.

    Args:
        config: graph.
        samples: inputs of the model by name for each image or sound, with batch size 1.

    Raises:
        ValueError: the arrays do not have the shapes that the graph takes.
    """
    asked = config.prompt if _generates(config) else config
    specs = [spec for spec in asked.inputs if spec.role not in _CACHE]
    if not any(spec.name in samples[0] for spec in specs):
        return []
    if any(spec.name not in samples[0] and spec.role not in _MASKS for spec in specs):
        return []
    chosen = [_of_sample(specs, sample) for sample in samples]
    if _generates(config):
        alike = [one for one in chosen if _shapes(one) == _shapes(chosen[0])][:BATCH]
        return [_media_case(asked, config, alike, 0, steps=_steps(config, 1))]
    cases, start = [], 0
    while start < len(chosen):
        end = start + 1
        most = 1 if _batch_is_one(config) else BATCH
        while end < min(len(chosen), start + most) and _shapes(chosen[end]) == _shapes(chosen[start]):
            end += 1
        cases.append(_media_case(asked, config, chosen[start:end], start))
        start = end
    return cases


def _of_sample(specs: Sequence[TensorSpec], sample: Arrays) -> Arrays:
    """Return the inputs of a graph for one sample. A processor that gives no mask has padded nothing."""
    dtypes = {"float": np.float32, "int64": np.int64, "bool": np.bool_}
    found: Arrays = {spec.name: sample[spec.name].astype(dtypes[spec.dtype]) for spec in specs if spec.name in sample}
    sizes = _sizes(specs, found)
    for spec in specs:
        if spec.name not in found:
            found[spec.name] = np.ones([axis_size(axis, sizes) for axis in spec.axes], dtypes[spec.dtype])
    return found


def _sizes(specs: Sequence[TensorSpec], arrays: Arrays) -> dict[str, int]:
    """Return the sizes of the axes of arrays.

    Raises:
        ValueError: an array has another number of axes, or another size of a fixed one.
    """
    sizes: dict[str, int] = {}
    for spec in (spec for spec in specs if spec.name in arrays):
        shape = arrays[spec.name].shape
        fitting = len(shape) == len(spec.axes) and all(
            axis == size for axis, size in zip(spec.axes, shape, strict=True) if isinstance(axis, int)
        )
        if not fitting:
            raise ValueError(
                f"{spec.name} has the shape ({', '.join(map(str, shape))}), and the model takes"
                f" ({', '.join(map(str, spec.axes))})"
            )
        sizes |= {axis: size for axis, size in zip(spec.axes, shape, strict=True) if isinstance(axis, str)}
    return sizes


def _shapes(arrays: Arrays) -> list[tuple[int, ...]]:
    return [array.shape for array in arrays.values()]


def _media_case(
    asked: ExportConfig, config: ExportConfig, samples: Sequence[Arrays], start: int, steps: int = 0
) -> Case:
    specs = [spec for spec in asked.inputs if spec.name in samples[0]]
    joined = {spec.name: np.concatenate([sample[spec.name] for sample in samples]) for spec in specs}
    sizes = dict.fromkeys(asked.free_axes, 0) | dict.fromkeys(config.free_axes, 0) | _sizes(specs, joined)
    if steps:
        sizes |= dict.fromkeys(_token_axes(asked), 1)
        if isinstance(config, Seq2SeqGraph):
            sizes["decoder_sequence"] = 1
        probe = Probe(f"{steps} greedy tokens", sizes, "none", 0, steps)
    else:
        probe = Probe(f"samples {start + 1} to {start + len(samples)}", sizes, "right", start)
    return Case(probe, joined, real=True)


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


def longest(config: ExportConfig, *, pairs: bool) -> int:
    """Return the number of tokens to which texts or pairs of them are cut, which fit into every axis of tokens."""
    asked = config.prompt if _generates(config) else config
    most = LONGEST_PAIR if pairs else LONGEST
    for axis in _token_axes(asked):
        limit = asked.limits.get(axis)
        if limit is not None and limit.maximum is not None:
            most = min(most, limit.maximum)
    return max(1, most)


def _token_axes(config: ExportConfig) -> list[str]:
    axes = [spec.axes[-1] for spec in config.inputs if spec.role in _TOKENS]
    return list(dict.fromkeys(names_in(axis)[-1] for axis in axes if isinstance(axis, str)))


def _call(config: ExportConfig, texts: Sequence[Tokens], pad: int, seed: int) -> Case:
    length = max(len(text.ids) for text in texts)
    sizes = dict.fromkeys(config.free_axes, 0)
    sizes |= {"batch": len(texts), **dict.fromkeys(_token_axes(config), length)}
    probe = Probe(f"texts {seed + 1} to {seed + len(texts)}", sizes, "right", seed)
    return Case(probe, _filled(config, texts, pad, sizes, seed), real=True)


def _steps(config: ExportConfig, prompt: int) -> int:
    """Return the number of tokens to generate after a prompt of this length."""
    most = config.family.max_decoder_positions if isinstance(config, Seq2SeqGraph) else None
    if isinstance(config, DecoderConfig) and config.max_positions:
        most = config.max_positions - prompt
    return STEPS if most is None else min(STEPS, most)


def _generations(config: ExportConfig, texts: Sequence[Tokens], pad: int) -> list[Case]:
    """Return one generation for a batch of texts of equal length."""
    asked = config.prompt
    prompts = [text.cut(PROMPT) for text in texts if len(text.ids) >= PROMPT] or [text.cut(1) for text in texts]
    prompts = prompts[:BATCH]
    length = len(prompts[0].ids)
    steps = _steps(config, length)
    sizes = dict.fromkeys(asked.free_axes, 0) | {"batch": len(prompts)}
    sizes |= dict.fromkeys(_token_axes(asked), length)
    if asked is config and isinstance(config, Seq2SeqGraph):
        sizes["decoder_sequence"] = 1
    probe = Probe(f"{steps} greedy tokens", sizes, "none", 0, steps)
    inputs = _filled(asked, prompts, pad, sizes, 0)
    if "decoder_input_ids" in inputs:
        inputs["decoder_input_ids"] = np.full((len(prompts), 1), config.start_token, np.int64)
    return [Case(probe, inputs, real=True)]


def _filled(config: ExportConfig, texts: Sequence[Tokens], pad: int, sizes: Mapping[str, int], seed: int) -> Arrays:
    """Return the inputs of a graph for texts, padded on the right."""
    length = max(len(text.ids) for text in texts)
    mask = np.array([[1] * len(text.ids) + [0] * (length - len(text.ids)) for text in texts], np.int64)
    ids = np.array([[*text.ids, *[pad] * (length - len(text.ids))] for text in texts], np.int64)
    types = np.array([[*text.types, *[0] * (length - len(text.types))] for text in texts], np.int64)
    positions = np.where(mask == 0, 1, np.cumsum(mask, axis=-1) - 1)
    by_role: Mapping[str, Callable[[], NDArray[np.int64]]] = {
        "token_ids": ids.copy,
        "sentence_ids": ids.copy,
        "attention_mask": mask.copy,
        "token_type_ids": types.copy,
        "position_ids": positions.copy,
    }
    arrays = make_inputs(config, sizes, "fp32", seed=seed)
    for spec in config.inputs:
        fill = by_role.get(spec.role)
        if fill is not None and arrays[spec.name].shape == ids.shape:
            arrays[spec.name] = fill()
    return arrays
