"""Back ends, one package per format. `backend_for` imports only the requested one, since each loads torch."""

from __future__ import annotations

from hfexport.backends.base import Artifact, Backend, ExportJob

__all__ = ["Artifact", "Backend", "ExportJob", "backend_for"]


def backend_for(format_name: str) -> Backend:
    """Return the back end for `format_name` (`onnx`, `torchscript` or `neuron`)."""
    if format_name == "onnx":
        from hfexport.backends.onnx.backend import OnnxBackend

        return OnnxBackend()
    if format_name == "neuron":
        from hfexport.backends.neuron import NeuronBackend

        return NeuronBackend()
    from hfexport.backends.torchscript.backend import TorchScriptBackend

    return TorchScriptBackend()
