"""Runs in the environment of another ONNX Runtime: runs a graph and writes its outputs. Imports nothing of hfexport.

python runtime_peer.py model.onnx inputs.npz outputs.npz
"""

from __future__ import annotations

import sys

import numpy as np
import onnxruntime

if __name__ == "__main__":
    model, inputs, outputs = sys.argv[1:]
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    with np.load(inputs) as arrays:
        given = {value.name: arrays[value.name] for value in session.get_inputs()}
    names = [value.name for value in session.get_outputs()]
    np.savez(outputs, **dict(zip(names, session.run(names, given), strict=True)))
