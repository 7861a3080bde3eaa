"""Measure how far the outputs of a variant are from the model's. Numpy only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hfexport.export_config import ExportConfig
from hfexport.export_config.probes import Probe
from hfexport.validation.readable import hidden_positions

__all__ = ["Compared", "measure"]

Array = NDArray[Any]

_NARROW: Final = 16
"""Width below which rows of logits are compared together: the direction of two numbers says little."""

_SPREAD: Final = 0.05
"""Standard deviation of similarities below which their order is noise."""


@dataclass(frozen=True)
class Compared:
    """One case with both outputs.

    Attributes:
        probe: the case.
        real: its inputs are texts.
        inputs: inputs by name.
        model: outputs of the model by name.
        variant: outputs of the variant by name.
    """

    probe: Probe
    real: bool
    inputs: Mapping[str, Array]
    model: Mapping[str, Array]
    variant: Mapping[str, Array]


@dataclass
class _Sums:
    """Values of each measure, collected over cases."""

    cosines: list[Array] = field(default_factory=list)
    errors: list[Array] = field(default_factory=list)
    narrow: list[tuple[Array, Array]] = field(default_factory=list)
    choices: list[Array] = field(default_factory=list)
    spans: list[Array] = field(default_factory=list)
    greedy: list[Array] = field(default_factory=list)
    divergences: list[Array] = field(default_factory=list)
    surprises: list[tuple[Array, Array]] = field(default_factory=list)
    embeddings: list[tuple[Array, Array]] = field(default_factory=list)


def measure(config: ExportConfig, cases: Iterable[Compared]) -> dict[str, float]:
    """Return the measures of one graph by name; see docs/variants.md.

    Args:
        config: graph that was run.
        cases: its cases, read one at a time.
    """
    sums = _Sums()
    for case in cases:
        _add(sums, config, case)
    found: dict[str, float] = {}
    _add_distances(found, sums)
    for name, values in (
        ("top1_agreement", sums.choices),
        ("span_agreement", sums.spans),
        ("greedy_agreement", sums.greedy),
    ):
        if values:
            found[name] = float(np.concatenate([np.ravel(value) for value in values]).mean())
    if sums.divergences:
        found["kl_divergence"] = max(0.0, float(np.concatenate(sums.divergences).mean()))
    if sums.surprises:
        model, variant = (np.concatenate(part) for part in zip(*sums.surprises, strict=True))
        found["perplexity"], found["model_perplexity"] = _perplexity(variant), _perplexity(model)
        found["perplexity_ratio"] = float(np.exp(np.clip(variant.mean() - model.mean(), -50, 50)))
    if sums.embeddings:
        model, variant = (np.concatenate(part) for part in zip(*sums.embeddings, strict=True))
        found |= _neighbours(model, variant)
    return found


def _perplexity(surprise: Array) -> float:
    return float(np.exp(np.clip(surprise.mean(), 0, 50)))


def _add(sums: _Sums, config: ExportConfig, case: Compared) -> None:
    hidden = hidden_positions(config, case.probe, case.inputs, case.model)
    names = [name for name in case.model if not name.startswith("present.") and name != "tokens"]
    names = names or [name for name in case.model if name != "tokens"]
    for name in names:
        model = np.asarray(case.model[name], np.float32)
        variant = np.asarray(case.variant[name], np.float32)
        variant = np.nan_to_num(variant, nan=0.0, posinf=0.0, neginf=0.0)
        shown = _shown(hidden.get(name), model)
        narrow = model.ndim < 2 or model.shape[-1] < _NARROW or _is_over_tokens(name, config)
        if narrow:
            kept = np.broadcast_to(shown[..., None] if shown.ndim < model.ndim else shown, model.shape)
            sums.narrow.append((model[kept], variant[kept]))
        else:
            _add_rows(sums, name, model[shown], variant[shown])
        if name == "logits":
            _add_logits(sums, config, case, model, variant, shown)
        if case.real and name in ("last_hidden_state", "sentence_embedding") and config.part == "model":
            sums.embeddings.append((_pooled(model, shown), _pooled(variant, shown)))
    if "start_logits" in case.model and "end_logits" in case.model:
        sums.spans.append(_same_spans(case, hidden))


def _is_over_tokens(name: str, config: ExportConfig) -> bool:
    """Return whether the last axis of an output is a position, as of `start_logits`."""
    spec = next((spec for spec in config.outputs if spec.name == name), None)
    return spec is not None and name in ("start_logits", "end_logits")


def _shown(hidden: Array | None, output: Array) -> Array:
    """Return true where rows of an output are readable, for all axes but the last, or for all axes."""
    if hidden is None:
        return np.ones(output.shape[:-1] if output.ndim > 1 else output.shape, bool)
    if hidden.ndim == output.ndim and hidden.shape[-1] == 1:
        return np.broadcast_to(~hidden[..., 0], output.shape[:-1])
    return np.broadcast_to(~hidden, output.shape)


def _add_rows(sums: _Sums, name: str, model: Array, variant: Array) -> None:
    """Compare vectors one by one. Logits of words are compared around their mean, which has no effect on probabilities."""
    model, variant = (part.reshape(-1, part.shape[-1]).astype(np.float64) for part in (model, variant))
    if name == "logits":
        model, variant = model - model.mean(-1, keepdims=True), variant - variant.mean(-1, keepdims=True)
    lengths = np.linalg.norm(model, axis=-1), np.linalg.norm(variant, axis=-1)
    product = lengths[0] * lengths[1]
    both_zero = (lengths[0] == 0) & (lengths[1] == 0)
    cosine = np.where(product == 0, 0, (model * variant).sum(-1) / np.where(product == 0, 1, product))
    sums.cosines.append(np.where(both_zero, 1.0, cosine))
    distance = np.linalg.norm(model - variant, axis=-1)
    sums.errors.append(np.where(both_zero, 0.0, distance / np.where(lengths[0] == 0, 1, lengths[0])))


def _add_distances(found: dict[str, float], sums: _Sums) -> None:
    if sums.narrow:
        model, variant = (np.concatenate([np.ravel(one) for one in part]) for part in zip(*sums.narrow, strict=True))
        _add_rows(sums, "", model[None], variant[None])
    if sums.cosines:
        cosines = np.concatenate(sums.cosines)
        found["mean_cosine"], found["worst_cosine"] = float(cosines.mean()), float(cosines.min())
        found["relative_error"] = float(np.concatenate(sums.errors).mean())


def _add_logits(sums: _Sums, config: ExportConfig, case: Compared, model: Array, variant: Array, shown: Array) -> None:
    if case.probe.greedy_steps:
        sums.greedy.append(model.argmax(-1) == variant.argmax(-1))
    elif not config.task.name.endswith(("-lm", "-lm-with-past")):
        if case.real:
            sums.choices.append((model.argmax(-1) == variant.argmax(-1))[shown])
        return
    if not config.task.name.startswith(("causal-lm", "seq2seq-lm", "speech2seq-lm", "vision2seq-lm", "masked-lm")):
        return
    expected, found = _log_probabilities(model[shown]), _log_probabilities(variant[shown])
    sums.divergences.append((np.exp(expected) * (expected - found)).sum(-1).reshape(-1))
    if case.real and not case.probe.greedy_steps and config.task.name.startswith("causal-lm"):
        _add_surprise(sums, case, model, variant)


def _add_surprise(sums: _Sums, case: Compared, model: Array, variant: Array) -> None:
    """Collect the negative log-probability of each token of the texts, given those before."""
    ids, mask = case.inputs["input_ids"][:, 1:], case.inputs["attention_mask"][:, 1:] == 1
    if not mask.any():
        return

    def surprise(logits: Array) -> Array:
        chosen = np.take_along_axis(_log_probabilities(logits[:, :-1]), ids[..., None], axis=-1)[..., 0]
        return np.asarray(-chosen[mask])

    sums.surprises.append((surprise(model), surprise(variant)))


def _log_probabilities(logits: Array) -> Array:
    shifted = logits - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def _pooled(output: Array, shown: Array) -> Array:
    """Return one vector for each text or image: the mean over its tokens or pixels, or the output itself."""
    if output.ndim == 2:
        return output
    if output.ndim == 4:  # features of an image, (batch, channels, height, width)
        return np.asarray(output.mean(axis=(2, 3)))
    weights = shown[..., None].astype(np.float32)
    return np.asarray((output * weights).sum(1) / np.maximum(weights.sum(1), 1))


def _same_spans(case: Compared, hidden: Mapping[str, Array]) -> Array:
    """Return for each text whether the best start and the best end are the same."""

    def best(outputs: Mapping[str, Array], name: str) -> Array:
        scores = np.asarray(outputs[name], np.float32)
        covered = hidden.get(name)
        return np.asarray((scores if covered is None else np.where(covered, -np.inf, scores)).argmax(-1))

    same = [best(case.model, name) == best(case.variant, name) for name in ("start_logits", "end_logits")]
    return np.asarray(same[0] & same[1])


def _neighbours(model: Array, variant: Array) -> dict[str, float]:
    """Compare the similarities between texts: their order, and each text's nearest neighbour."""
    if len(model) < 4:
        return {}
    expected, found = _similarities(model), _similarities(variant)
    pairs = np.triu_indices(len(model), 1)
    if expected[pairs].std() < _SPREAD:
        return {}
    np.fill_diagonal(expected, -np.inf)
    np.fill_diagonal(found, -np.inf)
    return {
        "rank_correlation": _correlation(_ranks(expected[pairs]), _ranks(found[pairs])),
        "neighbour_agreement": float((expected.argmax(-1) == found.argmax(-1)).mean()),
    }


def _similarities(vectors: Array) -> Array:
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return np.asarray(unit @ unit.T)


def _ranks(values: Array) -> Array:
    ranks = np.empty(len(values))
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
    return ranks


def _correlation(one: Sequence[float] | Array, other: Sequence[float] | Array) -> float:
    return float(np.corrcoef(one, other)[0, 1])
