"""Export a checkpoint to ONNX with `transformers.exporters`, with free shapes: CHECKPOINT OUTPUT FEATURE GENERATES."""

from __future__ import annotations

import sys
from typing import Any

import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoModelForSpeechSeq2Seq
from transformers.exporters.configs import OnnxConfig
from transformers.exporters.exporter_onnx import OnnxExporter

CLASSES: dict[str, Any] = {
    "default": AutoModel,
    "sequence-classification": AutoModelForSequenceClassification,
    "causal-lm-with-past": AutoModelForCausalLM,
    "speech2seq-lm-with-past": AutoModelForSpeechSeq2Seq,
}


def main(checkpoint: str, output: str, feature: str, *, generates: bool) -> None:
    model = CLASSES[feature].from_pretrained(checkpoint, dtype=torch.float32).eval()
    inputs: dict[str, Any]
    if feature.startswith("speech"):
        frames = 2 * model.config.max_source_positions
        inputs = {"input_features": torch.randn(2, model.config.num_mel_bins, frames)}
    else:
        inputs = {"input_ids": torch.randint(1, 1000, (2, 8)), "attention_mask": torch.ones(2, 8, dtype=torch.int64)}
    exporter, config = OnnxExporter(), OnnxConfig(dynamic=True)
    with torch.no_grad():
        if generates:
            exported = exporter.export_for_generation(model, inputs, config, multi_token_decode=True)
        else:
            exported = exporter.export(model, inputs, config)
    exported.save_pretrained(output)


if __name__ == "__main__":
    main(*sys.argv[1:4], generates=sys.argv[4] == "generates")
