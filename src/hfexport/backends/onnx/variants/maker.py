"""Make the ONNX variants of a model: each from its graph in the dtype that the variant needs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from hfexport.backends.base import unwatched
from hfexport.backends.onnx.backend import OnnxBackend
from hfexport.backends.onnx.targets import chunk_limit, shares_weights
from hfexport.backends.onnx.variants.fused import fused_operators
from hfexport.backends.onnx.variants.make import make_variant
from hfexport.backends.onnx.variants.names import VARIANTS
from hfexport.backends.onnx.variants.optimised import has_branches

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hfexport.backends.base import Artifact, ExportJob
    from hfexport.backends.formats import Variant

__all__ = ["OnnxVariants"]


@dataclass(frozen=True)
class OnnxVariants:
    """Makes variants of ONNX files.

    Attributes:
        opset: opset of the graphs; `None` for that of the architecture.
        external: write weights to a separate file.
        targets: names of the consumers that must be able to load the files.
    """

    opset: int | None = None
    external: bool = False
    targets: tuple[str, ...] = ()
    _bases: dict[tuple[str, str], Path] = field(default_factory=dict)

    def make(self, variant: Variant, plain: Artifact, job: ExportJob) -> Artifact:
        """Write a variant beside its plain file; see `VariantMaker`."""
        base = plain.path if plain.dtype == job.dtype else self._base(job)
        target = plain.path.with_name(f"{plain.path.stem}{variant.file_suffix}.onnx")
        size_bytes = sum(file.stat().st_size for file in base.parent.glob(f"{base.name}*"))
        with job.progress(target.name, size_bytes) as advance:
            files = make_variant(
                VARIANTS[variant.name],
                base,
                target,
                model_type=job.config.config.model_type,
                external=self.external or shares_weights(self.targets),
                chunk_bytes=chunk_limit(self.targets),
                advance=advance,
            )
        # Inputs and outputs of a variant are float32, also if it computes in another dtype.
        return replace(plain, path=files[0], files=tuple(files), details={}, config=job.config, dtype="fp32")

    def notes(self, variant: Variant, plain: Sequence[Artifact], made: Sequence[Artifact]) -> list[str]:
        """Return what a user should know about a variant of these files; see `VariantMaker`."""
        if VARIANTS[variant.name].kind == "optimised" and any(has_branches(artifact.path) for artifact in plain):
            return ["the decoder has branches, in which ONNX Runtime's fusions are not applied"]
        if VARIANTS[variant.name].kind == "fused":
            return [_fused(made)]
        return []

    def _base(self, job: ExportJob) -> Path:
        """Return the graph in the job's dtype with external weights, made once in the job's folder."""
        key = job.dtype, job.config.graph
        if key not in self._bases:
            # without progress: this file is no artifact
            backend = OnnxBackend(self.opset, external_data=True)
            self._bases[key] = backend.export(replace(job, progress=unwatched)).path
        return self._bases[key]


def _fused(made: Sequence[Artifact]) -> str:
    """Return a remark on the fused operators in the files of a variant."""
    counts = sum((fused_operators(artifact.path) for artifact in made), start=Counter[str]())
    if not counts:
        return "no part of its graphs is one that ONNX Runtime has an operator for, so it computes as the plain file"
    return f"fused operators: {', '.join(f'{count} {name}' for name, count in sorted(counts.items()))}"
