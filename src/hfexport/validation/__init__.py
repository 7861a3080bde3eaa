"""Validation: compare the outputs of each artifact with those of the unpatched model.

The reference is computed while artifacts are made. Each artifact runs in a new process that did not make it.
"""

from __future__ import annotations

from hfexport._internal.workers import timeout_for
from hfexport.validation.limits import resolve_tolerance
from hfexport.validation.reference.start import Reference, start_reference, start_references
from hfexport.validation.validate import validate
from hfexport.validation.verdict import ArtifactVerdict, Check, OutputResult, ProbeResult, all_of, not_run

__all__ = [
    "ArtifactVerdict",
    "Check",
    "OutputResult",
    "ProbeResult",
    "Reference",
    "all_of",
    "not_run",
    "resolve_tolerance",
    "start_reference",
    "start_references",
    "timeout_for",
    "validate",
]
