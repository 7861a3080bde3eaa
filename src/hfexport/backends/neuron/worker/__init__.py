"""The child of the Neuron back end: runs in the Neuron SDK's own interpreter, which cannot hold today's torch.

It speaks files, inside one folder: `job.json` and `inputs.npz` in; `result.json`, `reference.npz`, `outputs.npz`, the
uncompiled traces and the artifact out; what the compiler says goes to stdout and stderr. Standard library, numpy, torch,
transformers and the SDK alone; Python 3.8 to 3.11; nothing of hfexport but this package, which the child finds by its
folder. See `main` for how it is started.

An error is one of `CODES`, with a message; the parent knows what to advise. Anything else is a bug.
"""

from __future__ import annotations

from typing import Any, Mapping

PROTOCOL = 1

CODES = (
    "bad_job",
    "no_sdk",
    "placeholder_package",
    "no_compiler",
    "wrong_version",
    "checkpoint_unreadable",
    "weights_missing",
    "model_failed",
    "trace_failed",
    "unsupported_operator",
    "compile_timeout",
    "compile_failed",
    "save_failed",
    "no_device",
    "run_failed",
)

SDKS: Mapping[str, Mapping[str, Any]] = {
    "inf1": {
        "module": "torch_neuron",
        "packages": ("torch-neuron", "neuron-cc"),
        "compiler": "neuron-cc",
        "torch": "1.13.",
        "python": ((3, 8), (3, 11)),
    },
    "inf2": {
        "module": "torch_neuronx",
        "packages": ("torch-neuronx", "neuronx-cc"),
        "compiler": "neuronx-cc",
        "torch": "2.",
        "python": ((3, 8), (3, 12)),
    },
}
"""What each target needs; torch by the start of its version, Python by the lowest and highest minor version."""

TRANSFORMERS = "4."

PART_MARK = "hfexport: compiling "
"""Printed with a part's name on a line before the part is handed to the SDK, so that the log can be told apart."""

DESCRIPTION_FILE = "hfexport.json"
COMPILED = "neuron::forward"
"""Kinds of nodes that run a compiled subgraph begin with this."""


class Failure(Exception):
    """An error of the closed set."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        assert code in CODES
        self.code = code
