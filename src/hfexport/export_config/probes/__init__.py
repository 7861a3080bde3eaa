"""Inputs drawn from a seed: the example that export traces, and the probes that validation runs."""

from __future__ import annotations

from hfexport.export_config.probes.plans import fixed_probes, validation_probes
from hfexport.export_config.probes.probe import Probe, beam_rows
from hfexport.export_config.probes.values import make_inputs, trace_inputs

__all__ = ["Probe", "beam_rows", "fixed_probes", "make_inputs", "trace_inputs", "validation_probes"]
