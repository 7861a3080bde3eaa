"""Runs in the environment of ONNX Runtime GenAI: generates greedily from a batch of prompts. Imports nothing of hfexport.

python genai_peer.py folder inputs.npz steps [overlay]
"""

from __future__ import annotations

import json
import sys

import numpy as np
import onnxruntime_genai as genai

if __name__ == "__main__":
    folder, inputs, steps, *overlay = sys.argv[1:]
    config = genai.Config(folder)
    if overlay:
        config.overlay(overlay[0])
    model = genai.Model(config)
    with np.load(inputs) as arrays:
        ids = arrays["input_ids"].astype(np.int32)
    params = genai.GeneratorParams(model)
    params.set_search_options(batch_size=len(ids), max_length=ids.shape[1] + int(steps), do_sample=False)
    generator = genai.Generator(model, params)
    generator.append_tokens(ids)
    while not generator.is_done():
        generator.generate_next_token()
    rows = [np.asarray(generator.get_sequence(row)).tolist() for row in range(len(ids))]
    print("answer " + json.dumps(rows))
