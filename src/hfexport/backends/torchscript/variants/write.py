"""Write the TorchScript variants of a graph: `frozen` from its file, `dynamic_int8` from its model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

from hfexport._internal.upstream.torch_core import graphs_of
from hfexport.backends.torchscript.trace import save_script, tidy_graphs, trace_model
from hfexport.backends.torchscript.variants.linear import quantise_linears
from hfexport.errors import ExportError, first_line
from hfexport.modeling.load import quiet
from hfexport.runtime import DESCRIPTION_FILE

if TYPE_CHECKING:
    from pathlib import Path

    from hfexport.backends.base import ExportJob

__all__ = ["write_frozen", "write_quantised"]


def write_frozen(plain: Path, target: Path, job: ExportJob) -> None:
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


def write_quantised(target: Path, job: ExportJob) -> None:
    """Trace the model with quantised linear layers, and save it."""
    traced = trace_model(job, quantise_linears)
    save_script(traced.module, target, json.dumps(traced.description.to_dict(), indent=1), traced.size_bytes, job)
