"""Make the variants of a proved export, and measure each against the model."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hfexport.checkpoint import copy_along
from hfexport.errors import ValidationError

if TYPE_CHECKING:
    from hfexport.backends.base import Artifact
    from hfexport.backends.formats import Variant
    from hfexport.manifest.model import Manifest
    from hfexport.run.exporter import Exporter, Result
    from hfexport.run.formats import FormatRun
    from hfexport.validation.quality import MadeVariant, ModelAnswers, Quality

SMALL_BYTES: Final = 2**22
"""Size of the plain files, in bytes, below which no remark is made on a variant's size: the graph is a large part of it."""

__all__ = ["hold_quality", "make_variants", "measure_again"]

_LEFT: Final = (
    "Leave the variant out, or accept a smaller similarity with min-similarity; nothing was left in the output folder."
)


def make_variants(exporter: Exporter, results: Sequence[Result]) -> list[MadeVariant]:
    """Make every requested variant, and measure it unless validation is off.

    Args:
        exporter: has made the plain files.
        results: its results; no variant is made if an artifact failed.
    """
    from hfexport.backends.variants import VARIANTS

    asked = [VARIANTS[name] for name in exporter.inputs.variants or ()]
    if not asked or any(verdict.verdict == "failed" for _, _, verdict in results):
        return []
    wanted = {variant.format for variant in asked}
    used = [form for form in exporter.formats if form.backend.format in wanted]
    plain = {form.backend.format: _plain_files(exporter, form, results) for form in used}
    answers = None
    if exporter.inputs.validate == "strict":
        answers = _start_model(exporter, [artifact for own in plain.values() for artifact in own])
    made = []
    try:
        for form in used:
            own = plain[form.backend.format]
            for variant in (variant for variant in asked if variant.format == form.backend.format):
                with exporter.stages(f"Variant {variant.name}"):
                    artifacts = _make(exporter, form, variant, own)
                made.append(_described(exporter, form, variant, artifacts, own, answers))
    finally:
        if answers is not None:
            answers.worker.stop()
    return made


def _plain_files(exporter: Exporter, form: FormatRun, results: Sequence[Result]) -> list[Artifact]:
    """Return the artifacts of a format with their export config and dtype."""
    return [
        replace(artifact, config=artifact.config or config, dtype=artifact.dtype or exporter.subject.dtype)
        for artifact, config, _ in results
        if artifact.format == form.backend.format
    ]


def _make(exporter: Exporter, form: FormatRun, variant: Variant, plain: Sequence[Artifact]) -> list[Artifact]:
    """Write one file for each graph beside the plain one."""
    assert form.variants is not None, "only a format with a maker is named by a variant"
    made = []
    for artifact in plain:
        assert artifact.config is not None
        dtype = variant.base or artifact.dtype
        folder = exporter.staging / f"graphs-{form.backend.format}-{dtype}"
        folder.mkdir(exist_ok=True)
        made.append(form.variants.make(variant, artifact, exporter.job(artifact.config, dtype, folder)))
        for file in made[-1].files:
            exporter.on_made(file)
    return made


def _described(
    exporter: Exporter,
    form: FormatRun,
    variant: Variant,
    artifacts: Sequence[Artifact],
    plain: Sequence[Artifact],
    answers: ModelAnswers | None,
) -> MadeVariant:
    from hfexport.validation.quality import MadeVariant, not_measured

    quality = not_measured("validate is off")
    if answers is not None:
        with exporter.stages(f"Quality of {variant.name}"):
            quality = measure(exporter, variant, artifacts, plain, answers)
        exporter.observer.note(f"  {variant.name}: {quality.verdict}, {_said(quality)}")
    share = _size(artifacts) / max(1, _size(plain))
    share *= 0.5 if exporter.subject.dtype == "fp16" else 1.0
    notes = [] if form.variants is None else form.variants.notes(variant, plain, artifacts)
    if share > variant.size_share and _size(artifacts) > SMALL_BYTES:
        notes.append(
            f"its size is {share:.0%} of the float32 files; {variant.size_share:.0%} or less was expected, so most of its"
            " weights are not in operators that this variant makes smaller"
        )
        exporter.observer.warn(f"{variant.name}: {notes[-1]}")
    return MadeVariant(variant.name, tuple(artifacts), quality, share, tuple(notes))


def measure_again(
    exporter: Exporter, forms: Sequence[FormatRun], folder: Path, manifest: Manifest
) -> list[MadeVariant]:
    """Measure the variants of an existing export, and return them.

    Args:
        exporter: exporter of the export's model.
        forms: formats of the export.
        folder: folder that the paths are relative to.
        manifest: manifest of the export.

    Raises:
        ValidationError: a variant is not as good as it has to be, or no variant that this version knows.
    """
    from hfexport.backends.variants import VARIANTS
    from hfexport.validation.quality import MadeVariant

    entries = manifest.get("variants", [])
    if not entries:
        return []
    for entry in entries:
        if entry["name"] not in VARIANTS or VARIANTS[entry["name"]].format != entry["format"]:
            raise ValidationError(f"{entry['name']!r} is no variant that this version of hfexport knows")
    wanted = {entry["format"] for entry in entries}
    used = [form for form in forms if form.backend.format in wanted]
    plain = {form.backend.format: _existing(exporter, form, folder, manifest) for form in used}
    for entry in entries:
        if len(entry["paths"]) != len(plain.get(entry["format"], ())):
            raise ValidationError(f"variant {entry['name']} has other graphs than the model")
    answers = _start_model(exporter, [artifact for own in plain.values() for artifact in own])
    made = []
    try:
        for entry in entries:
            variant, own = VARIANTS[entry["name"]], plain[entry["format"]]
            files = tuple(folder / file["path"] for file in entry["files"])
            dtype = "fp32" if variant.io_in_fp32 else exporter.subject.dtype
            artifacts = [
                replace(one, path=folder / path, files=files, details={}, dtype=dtype)
                for path, one in zip(entry["paths"], own, strict=True)
            ]
            quality = measure(exporter, variant, artifacts, own, answers)
            made.append(MadeVariant(variant.name, tuple(artifacts), quality, entry["size_share"]))
            exporter.observer.note(f"{entry['paths'][0]}: {quality.verdict}, {_said(quality)}")
    finally:
        answers.worker.stop()
    hold_quality(made, remedy=f"Do not use this variant. {_ACCEPT}")
    return made


def _existing(exporter: Exporter, form: FormatRun, folder: Path, manifest: Manifest) -> list[Artifact]:
    """Return the artifacts of an export in one format, with the graphs of the model.

    Raises:
        ValidationError: there are more or fewer than the model has graphs.
    """
    from hfexport.backends.base import Artifact

    graphs = exporter.graphs(form.backend)
    found = [entry for entry in manifest["artifacts"] if entry["format"] == form.backend.format]
    if len(found) != len(graphs):
        raise ValidationError(
            f"{form.backend.format}: has {len(found)} artifacts, but the model has {len(graphs)} graphs"
        )
    return [
        Artifact(
            form.backend.format,
            folder / entry["path"],
            tuple(folder / file["path"] for file in entry["files"]),
            config=config,
            dtype=exporter.subject.dtype,
        )
        for entry, config in zip(found, graphs, strict=True)
    ]


def measure(
    exporter: Exporter,
    variant: Variant,
    artifacts: Sequence[Artifact],
    plain: Sequence[Artifact],
    answers: ModelAnswers,
) -> Quality:
    """Measure the quality of a variant's files."""
    from hfexport.validation.quality import measure_variant

    return measure_variant(
        artifacts,
        plain,
        answers,
        _limits(variant, artifacts),
        folder=Path(tempfile.mkdtemp(prefix="run-variant-", dir=exporter.staging)),
        env=exporter.subject.env,
        timeout_s=exporter.subject.timeout_s,
        min_similarity=exporter.inputs.min_similarity,
        limited=exporter.subject.limited,
        compare_weights=variant.keeps_weights,
    )


def _limits(variant: Variant, artifacts: Sequence[Artifact]) -> str:
    """Return the limits of a variant's measures; a graph in float16 differs from the model's float32 by rounding."""
    return "half" if variant.limits == "exact" and artifacts[0].dtype == "fp16" else variant.limits


def _start_model(exporter: Exporter, plain: Sequence[Artifact]) -> ModelAnswers:
    """Start running the model on every graph of these files; formats share those of the same name."""
    from hfexport.validation.quality import start_model

    tokenizer = exporter.staging / "tokenizer"
    tokenizer.mkdir()
    copy_along(exporter.checkpoint.along, tokenizer)
    data = exporter.inputs.eval_data
    configs = [artifact.config for artifact in plain if artifact.config is not None]
    branches = {branch.graph: branch for config in configs for branch in config.branches}
    return start_model(
        exporter.subject.folder_in("fp32"),
        list(branches.values()),
        tokenizer=tokenizer,
        data=None if data is None else str(Path(data).absolute()),
        folder=exporter.staging / "model-for-variants",
        env=exporter.subject.env,
    )


_ACCEPT: Final = "If it was made with a smaller similarity that you accept, give it as --min-similarity."


def hold_quality(made: Sequence[MadeVariant], remedy: str = _LEFT) -> None:
    """Raise an error if a variant is not as good as it has to be.

    Args:
        made: measured variants.
        remedy: advice of the error.

    Raises:
        ValidationError: a measure is outside of its limits, or a file does not run.
    """
    failures = [f"{one.name}: {line}" for one in made for line in one.quality.failures]
    failures += [
        f"{one.name}: nothing was measured"
        for one in made
        if one.quality.verdict == "failed" and not one.quality.failures
    ]
    if failures:
        more = f"\nand {len(failures) - 5} more, in the manifest" if len(failures) > 5 else ""
        raise ValidationError(
            "\n".join(failures[:5]) + more,
            remedy=remedy,
        )


def _size(artifacts: Sequence[Artifact]) -> int:
    return sum(file.stat().st_size for artifact in artifacts for file in artifact.files)


def _said(quality: Quality) -> str:
    """Return the most informative measures in one line."""
    values: Mapping[str, float] = {measure.name: measure.value for measure in quality.measures}
    shown = [f"{name.replace('_', ' ')} {values[name]:.4g}" for name in values if name in _TELLING]
    return f"on {quality.data}: " + (", ".join(shown) or quality.reason)


_TELLING = ("mean_cosine", "worst_cosine", "kl_divergence", "greedy_agreement", "top1_agreement", "rank_correlation")
