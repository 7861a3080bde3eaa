"""Write the artifact's config.json: the model's config plus the fields that optimum-neuron needs to load the artifact.

`NeuronModelFor….from_pretrained` reads the sizes from keys `static_…` in the section `neuron`, which must use axis
names that it knows. It reads the task from that section (version 0.4) or from the top level (0.0, the last version for
Inf1's torch). Sources: `_neuron_config_init` in optimum/neuron/modeling_traced.py and `store_compilation_config` in
optimum/neuron/utils/argument_utils.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from hfexport.backends.base import ExportJob
from hfexport.backends.neuron.artifact import NeuronPart
from hfexport.backends.neuron.options import COMPILERS, NeuronOptions
from hfexport.export_config import axis_size

__all__ = ["compiler_settings", "write_config"]

_TASKS: Final = {
    "default": "feature-extraction",
    "sentence-embedding": "feature-extraction",
    "masked-lm": "fill-mask",
    "causal-lm": "text-generation",
    "sequence-classification": "text-classification",
    "seq2seq-lm": "text2text-generation",
}
"""Optimum's task names, where they differ from the feature names of `transformers.onnx`."""

_AXES: Final = {
    "batch": "batch_size",
    "sequence": "sequence_length",
    "encoder_sequence": "sequence_length",
    "choice": "num_choices",
    "height": "height",
    "width": "width",
}
"""optimum-neuron's axis names. It has none for the axes that are not listed."""


def write_config(job: ExportJob, options: NeuronOptions, parts: Sequence[NeuronPart], compiler_version: str) -> Path:
    """Write config.json into the artifact's folder.

    Args:
        job: checkpoint, interface and output folder.
        options: compile options.
        parts: compiled graphs.
        compiler_version: version of the target's compiler.
    """
    content = json.loads((job.checkpoint / "config.json").read_text(encoding="utf-8"))
    name = job.config.task.name.removesuffix("-with-past")
    content["task"] = _TASKS.get(name, name)
    content["neuron"] = {
        "compiler_type": COMPILERS[options.target],
        "compiler_version": compiler_version,
        "inline_weights_to_neff": not any(part.separate_weights for part in parts),
        **_static_sizes(parts),
        "sizes": {part.name: part.plan.held for part in parts},
        "dynamic_batch_size": options.dynamic_batch_size,
        "tensor_parallel_size": 1,
        **compiler_settings(options),
        "compiler_args": list(options.compiler_args),
        "input_names": [spec.name for spec in parts[0].plan.config.inputs],
        "output_names": [spec.name for spec in parts[-1].plan.config.outputs],
        "int_dtype": "int64",
        "float_dtype": "fp32",
        "model_type": job.config.config.model_type,
        "output_attentions": False,
        "output_hidden_states": False,
        "task": content["task"],
    }
    path = job.folder / "config.json"
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def _static_sizes(parts: Sequence[NeuronPart]) -> dict[str, int]:
    """Return the fixed sizes of the first part under optimum-neuron's names; a dynamic batch has its compiled size."""
    first = parts[0].plan
    sizes = {f"static_{_AXES[axis]}": size for axis, size in first.sizes.items() if axis in _AXES}
    for spec in first.config.inputs:
        if spec.role == "pixel_values":
            channels, height, width = (axis_size(axis, first.sizes) for axis in spec.axes[1:])
            sizes |= {"static_num_channels": channels, "static_height": height, "static_width": width}
            sizes |= {"static_image_size": height} if height == width else {}
    if len(parts) > 1:
        sizes["static_num_beams"] = parts[-1].plan.sizes["batch"] // first.sizes["batch"]
    return sizes


def compiler_settings(options: NeuronOptions) -> dict[str, Any]:
    """Translate the compiler's arguments to optimum-neuron's setting names.

    Without `--fast-math`, neuron-cc casts everything to bfloat16. Source: the archived "Mixed precision and
    performance-accuracy tuning (neuron-cc)", and the compilers' CLI references.
    """
    told = " ".join(options.compiler_args).replace("=", " ")
    cast: str | None = None
    kind = "bf16"
    if options.target == "inf1":
        asked = re.search(r"--fast-math\s+(?:no-\S+\s+)*(none|all|fp32-cast-(all|matmult)(?:-(\w+))?)", told)
        if asked is None or asked[1] == "all":
            cast = "all"
        elif asked[1] != "none":
            cast = "matmul" if asked[2] == "matmult" else "all"
            kind = asked[3] or ("mixed" if cast == "matmul" else "bf16")
    else:
        asked = re.search(r"--auto-cast\s+(\S+)", told)
        cast = {"none": None, "matmult": "matmul"}.get(asked[1], asked[1]) if asked else None
        kind = match[1] if (match := re.search(r"--auto-cast-type\s+(\S+)", told)) else kind
    level = re.search(r"(?:--optlevel|-O)\s*(\d)", told)
    return {
        "auto_cast": cast,
        "auto_cast_type": kind,
        "disable_fallback": not options.fallback,
        "disable_fast_relayout": "no-fast-relayout" in told,
        "optlevel": level[1] if level else "2",
    }
