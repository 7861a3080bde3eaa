"""Whisper in ONNX Runtime GenAI: its part of genai_config.json, audio_processor_config.json, and its two graphs.

https://github.com/microsoft/onnxruntime-genai/blob/main/src/models/whisper.cpp
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from hfexport.backends.onnx.targets.base import Divided, Exported, write_json
from hfexport.errors import UnsupportedError
from hfexport.export_config import ExportConfig

__all__ = ["AUDIO_FILE", "TASK", "check", "divided", "settings", "write"]

TASK: Final = "speech2seq-lm-with-past"
AUDIO_FILE: Final = "audio_processor_config.json"

FRAMES: Final = 3000
"""Frames of a spectrogram; a constant in GenAI."""

_ENCODER: Final = "encoder_model"
_DECODER: Final = "decoder_model_merged"


def check(graphs: Sequence[ExportConfig]) -> None:
    """Accept an encoder and a merged decoder for 30 seconds of sound.

    Raises:
        UnsupportedError: the graphs are laid out otherwise, or take another number of frames.
    """
    if [config.graph for config in graphs] != [_ENCODER, _DECODER]:
        raise UnsupportedError(
            f"target genai takes whisper as {_ENCODER}.onnx and {_DECODER}.onnx",
            remedy="Use --layout auto, or leave the target out.",
        )
    frames = graphs[0].inputs[0].axes[2]
    if frames != FRAMES:
        raise UnsupportedError(
            f"target genai: ONNX Runtime GenAI gives whisper {FRAMES} frames, but this model takes {frames}",
            remedy="Leave the target out.",
        )


def settings(graphs: Sequence[ExportConfig], suffix: str) -> dict[str, Any]:
    """Return the section `model` of genai_config.json, without special tokens.

    Args:
        graphs: encoder and merged decoder.
        suffix: ending of the graphs' file names.
    """
    encoder, decoder = graphs
    values = decoder.config
    session = {"session_options": {"log_id": "onnxruntime-genai", "provider_options": []}}
    sizes = {"hidden_size": int(values.d_model)}
    return {
        "type": "whisper",
        "vocab_size": decoder.vocabulary_size,
        "context_length": int(values.max_target_positions),
        "encoder": {
            **session,
            "filename": f"onnx/{_ENCODER}{suffix}.onnx",
            **sizes,
            "head_size": int(values.d_model) // int(values.encoder_attention_heads),
            "num_attention_heads": int(values.encoder_attention_heads),
            "num_hidden_layers": int(values.encoder_layers),
            "inputs": {"audio_features": encoder.inputs[0].name},
            "outputs": {
                "encoder_hidden_states": encoder.outputs[0].name,
                "cross_present_key_names": "present.%d.encoder.key",
                "cross_present_value_names": "present.%d.encoder.value",
            },
        },
        "decoder": {
            **session,
            "filename": f"onnx/{_DECODER}{suffix}.onnx",
            **sizes,
            "head_size": int(values.d_model) // int(values.decoder_attention_heads),
            "num_attention_heads": int(values.decoder_attention_heads),
            "num_key_value_heads": int(values.decoder_attention_heads),
            "num_hidden_layers": int(values.decoder_layers),
            "inputs": {
                "input_ids": "input_ids",
                "past_key_names": "past_key_values.%d.decoder.key",
                "past_value_names": "past_key_values.%d.decoder.value",
                "cross_past_key_names": "past_key_values.%d.encoder.key",
                "cross_past_value_names": "past_key_values.%d.encoder.value",
            },
            "outputs": {
                "logits": "logits",
                "present_key_names": "present.%d.decoder.key",
                "present_value_names": "present.%d.decoder.value",
            },
        },
    }


def write(exported: Exported, suffix: str) -> list[Path]:
    """Write audio_processor_config.json, and two graphs beside each pair of an encoder and a decoder.

    They share the external data of that pair.
    """
    from hfexport.backends.onnx.targets.cross_attention import write_decoder, write_encoder

    made = [write_json(exported.folder / AUDIO_FILE, _audio(exported.folder, exported.graphs[0]))]
    names = {file.name: file for file in exported.files if file.suffix == ".onnx"}
    for name, encoder in names.items():
        if not name.startswith(_ENCODER):
            continue
        decoder = names[name.replace(_ENCODER, _DECODER)]
        made.append(write_encoder(encoder, decoder, encoder.with_name(f"{encoder.stem}{suffix}.onnx")))
        made.append(write_decoder(decoder, decoder.with_name(f"{decoder.stem}{suffix}.onnx")))
    return made


def divided(files: Sequence[Path], suffix: str) -> list[Divided]:
    """Return the graphs that `write` makes among `files`, with those that they were made from."""
    ending = f"{suffix}.onnx"
    found = [path for path in files if path.name.startswith((_ENCODER, _DECODER)) and path.name.endswith(ending)]
    encoders = sorted({path.with_name(path.name.replace(_DECODER, _ENCODER)) for path in found})
    return [_pair(path, ending) for path in encoders]


def _pair(new_encoder: Path, ending: str) -> Divided:
    encoder = new_encoder.with_name(f"{new_encoder.name.removesuffix(ending)}.onnx")
    decoder, new_decoder = (path.with_name(path.name.replace(_ENCODER, _DECODER)) for path in (encoder, new_encoder))
    return Divided(encoder, decoder, new_encoder, new_decoder)


def _audio(folder: Path, encoder: ExportConfig) -> dict[str, Any]:
    """Return the content of audio_processor_config.json, with the sizes of the checkpoint's processor if it has one."""
    processor, extractor = (_read(folder / f"{name}_config.json") for name in ("processor", "preprocessor"))
    given = extractor or processor.get("feature_extractor") or {}
    size, hop = int(given.get("n_fft", 400)), int(given.get("hop_length", 160))
    mels = encoder.inputs[0].axes[1]
    spectrogram = {"chunk_size": int(given.get("chunk_length", 30)), "hop_length": hop, "n_fft": size, "n_mel": mels}
    operations = [
        {"name": "audio_decoder", "type": "AudioDecoder"},
        {"name": "STFT", "type": "STFTNorm", "attrs": {"n_fft": size, "frame_length": size, "hop_length": hop}},
        {"name": "log_mel_spectrogram", "type": "LogMelSpectrum", "attrs": spectrogram},
    ]
    return {"feature_extraction": {"sequence": [{"operation": operation} for operation in operations]}}


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
