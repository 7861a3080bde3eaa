"""Make the TorchScript variants of a graph: `frozen` from its file, `dynamic_int8` from its model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import torch

from hfexport._internal.upstream.torch_core import graphs_of
from hfexport.backends.torchscript.backend import save_script, tidy_graphs, trace_model
from hfexport.backends.torchscript.variants.linear import quantise_linears
from hfexport.errors import ExportError, UnsupportedError, first_line
from hfexport.modeling.load import quiet
from hfexport.runtime import DESCRIPTION_FILE

if TYPE_CHECKING:
    from pathlib import Path

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
        target = plain.path.with_name(f"{plain.path.stem}{variant.file_suffix}.pt")
        size_bytes = plain.path.stat().st_size
        with job.progress(target.name, size_bytes) as advance:
            if variant.name == "frozen":
                _write_frozen(plain.path, target, job)
            else:
                _write_quantised(target, job)
            advance(size_bytes)
        return replace(plain, path=target, files=(target,), details={}, config=job.config, dtype=job.dtype)

    def notes(self, variant: Variant, plain: Sequence[Artifact], made: Sequence[Artifact]) -> list[str]:
        """Return what a user should know about a variant of these files; see `VariantMaker`."""
        del made
        if variant.name == "frozen" and any("aten::_convolution" in one.details.get("operators", {}) for one in plain):
            return [_CONVOLUTIONS]
        return []


def _write_frozen(plain: Path, target: Path, job: ExportJob) -> None:
    """Freeze a file and optimise it for inference, as far as the result can be stored."""
    extra: dict[str, str | bytes] = {DESCRIPTION_FILE: ""}
    try:
        with quiet():
            frozen = _optimised(torch.jit.load(str(plain), map_location="cpu", _extra_files=extra))
            if frozen is None:
                frozen = torch.jit.freeze(torch.jit.load(str(plain), map_location="cpu").eval())
    except RuntimeError as error:
        raise ExportError(
            f"{job.checkpoint}: torch.jit.freeze rejects {plain.name}: {first_line(error, limit=200, named=True)}",
            remedy="Leave the variant frozen out.",
        ) from error
    text = extra[DESCRIPTION_FILE]
    description = json.loads(text)
    tidy_graphs(frozen, tuple(entry["name"] for entry in description["inputs"]))
    save_script(frozen, target, text if isinstance(text, str) else text.decode(), plain.stat().st_size, job)


def _optimised(module: Any) -> Any:
    """Return the frozen module optimised for inference; `None` if it has tensors in oneDNN's layout, which cannot be saved.

    https://docs.pytorch.org/docs/stable/generated/torch.jit.optimize_for_inference.html
    """
    optimised = torch.jit.optimize_for_inference(torch.jit.freeze(module.eval()))
    return None if any("mkldnn" in str(graph).lower() for graph in graphs_of(optimised)) else optimised


def _write_quantised(target: Path, job: ExportJob) -> None:
    """Trace the model with quantised linear layers, and save it."""
    traced = trace_model(job, quantise_linears)
    save_script(traced.module, target, json.dumps(traced.description.to_dict(), indent=1), traced.size_bytes, job)
