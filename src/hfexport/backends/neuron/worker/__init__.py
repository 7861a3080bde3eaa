"""Worker of the Neuron back end: runs in the Neuron SDK's own interpreter, which needs an older torch than hfexport.

Its interface is files in one folder. It reads `job.json` and `inputs.npz`. It writes `result.json`, `reference.npz`,
`outputs.npz`, the uncompiled traces and the artifact. The compiler's messages go to stdout and stderr.

It may use only the standard library, numpy, torch, transformers and the SDK, and must run on Python 3.8 to 3.11. It
imports nothing of hfexport except this package, which it finds by its folder. See `main` for how it is started.

An expected error is one of `CODES` with a message; the parent process adds the advice. Any other error is a bug.
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
        "python": ((3, 11), (3, 13)),
    },
}
"""Requirements of each target: the prefix of torch's version, and the lowest and highest minor version of Python."""

TRANSFORMERS = "4."

PART_MARK = "hfexport: compiling "
"""Printed with a part's name before the part is compiled, so that the log can be split by part."""

DESCRIPTION_FILE = "hfexport.json"
COMPILED = "neuron::forward"
"""Prefix of the node kinds that run a compiled subgraph."""


class Failure(Exception):
    """An error with one of the codes in `CODES`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        assert code in CODES
        self.code = code
