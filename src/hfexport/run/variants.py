"""Make the variants of a proved export, and measure each against the model."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hfexport.checkpoint import copy_along
from hfexport.errors import ValidationError

if TYPE_CHECKING:
    from hfexport.backends.base import Artifact
    from hfexport.backends.onnx.variants.names import Variant
    from hfexport.export_config import ExportConfig
    from hfexport.manifest.model import FileEntry, Manifest
    from hfexport.run.exporter import Exporter, Result
    from hfexport.validation.quality import MadeVariant, ModelAnswers, Quality

SMALL_BYTES: Final = 2**22
"""Size of the files below which nothing is said about it: the graph itself takes a part of it."""

__all__ = ["hold_quality", "make_variants", "measure_again"]

_LEFT: Final = (
    "Leave the variant out, or accept a smaller similarity with min-similarity; nothing was left in the output folder."
)


@dataclass
class _Maker:
    """Make variants from graphs in the dtypes that they need."""

    exporter: Exporter
    plain: Sequence[tuple[Artifact, ExportConfig]]
    _bases: dict[str, list[Artifact]] = field(default_factory=dict)

    def make(self, variant: Variant) -> tuple[Artifact, ...]:
        """Write one file for each graph beside the plain one."""
        from hfexport.backends.onnx.variants.make import make_variant

        made = []
        exporter = self.exporter
        for (plain, config), base in zip(self.plain, self.base(variant.base), strict=True):
            target = plain.path.with_name(f"{plain.path.stem}{variant.file_suffix}.onnx")
            size_bytes = sum(file.stat().st_size for file in base.files)
            with exporter.observer.progress(target.name, size_bytes, unit="B") as advance:
                files = make_variant(
                    variant,
                    base.path,
                    target,
                    model_type=exporter.checkpoint.model_type,
                    external=exporter.inputs.external_data,
                    advance=advance,
                )
            for file in files:
                exporter.on_made(file)
            made.append(replace(plain, path=files[0], files=tuple(files), details={}, config=config))
        return tuple(made)

    def base(self, dtype: str) -> list[Artifact]:
        """Return the graphs in `dtype`: the plain files, or files with external weights in the staging folder."""
        from hfexport.backends.base import unwatched
        from hfexport.backends.onnx.backend import OnnxBackend

        if dtype == self.exporter.subject.dtype:
            return [artifact for artifact, _ in self.plain]
        if dtype not in self._bases:
            folder = self.exporter.staging / f"graphs-{dtype}"
            folder.mkdir()
            backend = OnnxBackend(self.exporter.inputs.opset, external_data=True)
            self._bases[dtype] = [
                # without progress: these files are no artifacts
                backend.export(replace(self.exporter.job(config, dtype, folder), progress=unwatched))
                for _, config in self.plain
            ]
        return self._bases[dtype]


def make_variants(exporter: Exporter, results: Sequence[Result]) -> list[MadeVariant]:
    """Make every requested variant of the ONNX files, and measure it unless validation is off.

    Args:
        exporter: has made the plain files.
        results: what it returned; nothing is made if an artifact failed.
    """
    from hfexport.backends.onnx.variants.names import FORMAT, VARIANTS

    if any(verdict.verdict == "failed" for _, _, verdict in results):
        return []
    plain = [(artifact, config) for artifact, config, _ in results if artifact.format == FORMAT]
    names = [name for name in exporter.inputs.variants or () if name in VARIANTS]
    if not names or not plain:
        return []
    strict = exporter.inputs.validate == "strict"
    answers = _start_model(exporter, [config for _, config in plain]) if strict else None
    maker = _Maker(exporter, plain)
    made = []
    try:
        for name in names:
            with exporter.stages(f"Variant {name}"):
                artifacts = maker.make(VARIANTS[name])
            made.append(_described(exporter, VARIANTS[name], artifacts, plain, answers))
    finally:
        if answers is not None:
            answers.worker.stop()
    return made


def _described(
    exporter: Exporter,
    variant: Variant,
    artifacts: tuple[Artifact, ...],
    plain: Sequence[tuple[Artifact, ExportConfig]],
    answers: ModelAnswers | None,
) -> MadeVariant:
    from hfexport.validation.quality import MadeVariant, not_measured

    quality = not_measured("validate is off")
    if answers is not None:
        with exporter.stages(f"Quality of {variant.name}"):
            quality = measure(exporter, variant, artifacts, [artifact for artifact, _ in plain], answers)
        exporter.observer.note(f"  {variant.name}: {quality.verdict}, {_said(quality)}")
    share = _size(artifacts) / max(1, _size([artifact for artifact, _ in plain]))
    share *= 0.5 if exporter.subject.dtype == "fp16" else 1.0
    notes = []
    if variant.kind == "optimised" and any(len(config.branches) > 1 for _, config in plain):
        notes.append("the decoder has branches, in which ONNX Runtime's fusions are not applied")
    if share > variant.size_share and _size(artifacts) > SMALL_BYTES:
        notes.append(
            f"its size is {share:.0%} of the float32 files; {variant.size_share:.0%} or less was expected, so most of its"
            " weights are not in operators that this variant makes smaller"
        )
        exporter.observer.warn(f"{variant.name}: {notes[-1]}")
    return MadeVariant(variant.name, artifacts, quality, share, tuple(notes))


def measure_again(exporter: Exporter, folder: Path, manifest: Manifest) -> None:
    """Measure the variants of an existing export.

    Args:
        exporter: exporter of the export's model.
        folder: folder that the paths are relative to.
        manifest: manifest of the export.

    Raises:
        ValidationError: a variant is not as good as it has to be, or no variant that this version knows.
    """
    from hfexport.backends.base import Artifact
    from hfexport.backends.onnx.backend import OnnxBackend
    from hfexport.backends.onnx.variants.names import FORMAT, VARIANTS
    from hfexport.validation.quality import MadeVariant

    entries = manifest.get("variants", [])
    if not entries:
        return
    graphs = exporter.graphs(OnnxBackend(exporter.inputs.opset))
    found = [entry for entry in manifest["artifacts"] if entry["format"] == FORMAT]
    if unknown := [entry["name"] for entry in entries if entry["name"] not in VARIANTS]:
        raise ValidationError(f"{unknown[0]!r} is no variant that this version of hfexport knows")
    if any(len(entry["paths"]) != len(graphs) for entry in entries) or len(found) != len(graphs):
        raise ValidationError(f"a variant has other graphs than the model, which has {len(graphs)}")

    def artifact(path: str, files: Sequence[FileEntry], config: ExportConfig) -> Artifact:
        return Artifact("onnx", folder / path, tuple(folder / file["path"] for file in files), config=config)

    plain = [artifact(entry["path"], entry["files"], config) for entry, config in zip(found, graphs, strict=True)]
    answers = _start_model(exporter, graphs)
    made = []
    try:
        for entry in entries:
            paths = zip(entry["paths"], graphs, strict=True)
            files = [artifact(path, entry["files"], config) for path, config in paths]
            quality = measure(exporter, VARIANTS[entry["name"]], files, plain, answers)
            made.append(MadeVariant(entry["name"], tuple(files), quality, entry["size_share"]))
            exporter.observer.note(f"{entry['paths'][0]}: {quality.verdict}, {_said(quality)}")
    finally:
        answers.worker.stop()
    hold_quality(made, remedy=f"Do not use this variant. {_ACCEPT}")


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
        variant.limits,
        folder=Path(tempfile.mkdtemp(prefix="run-variant-", dir=exporter.staging)),
        env=exporter.subject.env,
        timeout_s=exporter.subject.timeout_s,
        min_similarity=exporter.inputs.min_similarity,
        limited=exporter.subject.limited,
        compare_weights=variant.kind != "optimised",
    )


def _start_model(exporter: Exporter, configs: Sequence[ExportConfig]) -> ModelAnswers:
    from hfexport.validation.quality import start_model

    tokenizer = exporter.staging / "tokenizer"
    tokenizer.mkdir()
    copy_along(exporter.checkpoint.along, tokenizer)
    data = exporter.inputs.eval_data
    return start_model(
        exporter.subject.folder_in("fp32"),
        [branch for config in configs for branch in config.branches],
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
    """Return the measures that say most, in one line."""
    values: Mapping[str, float] = {measure.name: measure.value for measure in quality.measures}
    shown = [f"{name.replace('_', ' ')} {values[name]:.4g}" for name in values if name in _TELLING]
    return f"on {quality.data}: " + (", ".join(shown) or quality.reason)


_TELLING = ("mean_cosine", "worst_cosine", "kl_divergence", "greedy_agreement", "top1_agreement", "rank_correlation")
