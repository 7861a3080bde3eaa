"""Runs beside optimum-neuron: loads artifacts with its classes as its users do, and answers what they are asked.

Reads one job from stdin as JSON, and writes the answer to stdout. Imports nothing of hfexport.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch


def main() -> None:
    import optimum.neuron

    job: dict[str, Any] = json.load(sys.stdin)
    model = getattr(optimum.neuron, job["class"]).from_pretrained(job["folder"])
    with np.load(job["inputs"]) as arrays:
        inputs = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    outputs = {name: tensor.tolist() for name, tensor in model(**inputs).items()}
    shapes = {name: list(shape) for name, shape in model.input_static_shapes.items()}
    print("answer " + json.dumps({"outputs": outputs, "shapes": shapes}))


if __name__ == "__main__":
    main()
