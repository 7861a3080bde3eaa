"""Runs in the environment of ONNX Runtime GenAI: transcribes sounds greedily. Imports nothing of hfexport.

Writes the features of the sounds to features.npy beside the first.

python genai_whisper_peer.py folder prompt steps overlay sound.wav...
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime_genai as genai

if __name__ == "__main__":
    folder, prompt, steps, overlay, *sounds = sys.argv[1:]
    config = genai.Config(folder)
    if overlay:
        config.overlay(overlay)
    model = genai.Model(config)
    processor = model.create_multimodal_processor()
    inputs = processor([prompt] * len(sounds), audios=genai.Audios.open(*sounds))
    np.save(Path(sounds[0]).with_name("features.npy"), inputs["audio_features"].as_numpy())
    length = inputs["input_ids"].shape()[1] + int(steps)
    params = genai.GeneratorParams(model)
    params.set_search_options(batch_size=len(sounds), num_beams=1, max_length=length, do_sample=False)
    generator = genai.Generator(model, params)
    generator.set_inputs(inputs)
    while not generator.is_done():
        generator.generate_next_token()
    rows = [np.asarray(generator.get_sequence(row)).tolist() for row in range(len(sounds))]
    print("answer " + json.dumps(rows))
