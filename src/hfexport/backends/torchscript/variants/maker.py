"""Make the TorchScript variants of a graph: `frozen` from its file, `dynamic_int8` from its model. Torch is imported late."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from hfexport.errors import UnsupportedError

if TYPE_CHECKING:
    from hfexport.backends.base import Artifact, ExportJob
    from hfexport.backends.formats import Variant

__all__ = ["TorchScriptVariants"]


_CONVOLUTIONS: Final = (
    "convolutions are folded and frozen; their conversion by torch.jit.optimize_for_inference cannot be stored: call it on"
    " the loaded module"
)


@dataclass(frozen=True)
class TorchScriptVariants:
    """Makes variants of TorchScript files."""

    def make(self, variant: Variant, plain: Artifact, job: ExportJob) -> Artifact:
        """Write a variant beside its plain file; see `VariantMaker`."""
        if plain.fixed_sizes:
            raise UnsupportedError(
                f"variant {variant.name}: {plain.name} holds only at the sizes it was traced with, and variants are"
                " measured at others",
                remedy="Leave this variant out.",
            )
        from hfexport.backends.torchscript.variants.write import write_frozen, write_quantised

        target = plain.path.with_name(f"{plain.path.stem}{variant.file_suffix}.pt")
        size_bytes = plain.path.stat().st_size
        with job.progress(target.name, size_bytes) as advance:
            if variant.name == "frozen":
                write_frozen(plain.path, target, job)
            else:
                write_quantised(target, job)
            advance(size_bytes)
        return replace(plain, path=target, files=(target,), details={}, config=job.config, dtype=job.dtype)

    def notes(self, variant: Variant, plain: Sequence[Artifact], made: Sequence[Artifact]) -> list[str]:
        """Return what a user should know about a variant of these files; see `VariantMaker`."""
        del made
        if variant.name == "frozen" and any("aten::_convolution" in one.details.get("operators", {}) for one in plain):
            return [_CONVOLUTIONS]
        return []
