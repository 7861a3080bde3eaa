"""genai_config.json, with which ONNX Runtime GenAI generates text.

https://onnxruntime.ai/docs/genai/reference/config.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hfexport.backends.onnx.targets import genai_whisper as whisper
from hfexport.backends.onnx.targets.base import Divided, Exported, Rewritten, write_json
from hfexport.errors import UnsupportedError, ValidationError
from hfexport.export_config import ExportConfig, TensorSpec

__all__ = ["GenAI"]

CONFIG_FILE: Final = "genai_config.json"
GRAPH_SUFFIX: Final = "_genai"

TYPES: Final = frozenset(
    {
        *("gemma", "gemma2", "gemma3_text", "granite", "llama", "mistral", "nemotron", "olmo", "phi", "phi3"),
        *("qwen2", "qwen3", "smollm3"),
    }
)
"""Values of `model_type` that GenAI has as a type too; all other decoders have the type `decoder`."""


class GenAI:
    """ONNX Runtime GenAI: `onnxruntime_genai.Model(folder)`."""

    name = "genai"
    chunk_bytes: int | None = None
    shares_weights = True

    def check(self, graphs: Sequence[ExportConfig]) -> None:
        """Accept a text decoder with a cache of keys and values, and whisper.

        Raises:
            UnsupportedError: the graphs are something else.
        """
        config = graphs[0]
        if config.config.model_type == "whisper" and config.task.name == whisper.TASK:
            whisper.check(graphs)
        elif len(graphs) != 1 or config.task.name != "causal-lm-with-past" or not _cache(config):
            raise UnsupportedError(
                f"target genai takes whisper and text decoders with a cache, but task {config.task.name} of model_type"
                f" {config.config.model_type!r} is none",
                remedy=f"Use --task causal-lm-with-past with a text decoder, --task {whisper.TASK} with whisper, or leave"
                " the target out.",
            )
        if any(graph.fixed_sizes for graph in graphs):
            raise UnsupportedError(
                "target genai calls a graph at many sizes, but fixed gives its axes one size",
                remedy="Leave fixed or the target out.",
            )

    def write(self, exported: Exported) -> list[Path]:
        """Write genai_config.json beside config.json and the tokenizer's files, and a graph beside each ONNX file.

        The graphs end in `_genai`. They share the weights of that file, and find padding at the start of prompts. The
        config names that of the plain graph. For whisper, see `genai_whisper`.
        """
        from hfexport.backends.onnx.targets.left_padding import can_find_padding, write_left_padded

        path = exported.folder / "generation_config.json"
        generation = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if len(exported.graphs) > 1:
            model = {
                **whisper.settings(exported.graphs, GRAPH_SUFFIX),
                **_tokens(exported.graphs[0].config, generation),
            }
            config_file = write_json(
                exported.folder / CONFIG_FILE, {"model": model, "search": _search(model["context_length"], generation)}
            )
            return [config_file, *whisper.write(exported, GRAPH_SUFFIX)]
        (config,) = exported.graphs
        settings = _settings(config, generation)
        key, pad = _cache(config)[0].name, settings["model"]["pad_token_id"]
        graphs = [
            write_left_padded(file, file.with_name(f"{file.stem}{GRAPH_SUFFIX}.onnx"), key, pad)
            for file in exported.files
            if file.suffix == ".onnx" and can_find_padding(file)
        ]
        return [write_json(exported.folder / CONFIG_FILE, settings), *graphs]

    def rewritten(self, folder: Path, files: Sequence[Path]) -> list[Rewritten | Divided]:
        """Return the graphs that find padding, and those of whisper."""
        if divided := whisper.divided(files, GRAPH_SUFFIX):
            return list(divided)
        graphs = [path for path in files if path.name.endswith(f"{GRAPH_SUFFIX}.onnx")]
        pad = _read_pad(folder / CONFIG_FILE) if graphs else 0
        return [Rewritten(path.with_name(f"{path.stem.removesuffix(GRAPH_SUFFIX)}.onnx"), path, pad) for path in graphs]


def _read_pad(path: Path) -> int:
    """Return the padding id of a genai_config.json.

    Raises:
        ValidationError: the file has none.
    """
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["model"]["pad_token_id"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValidationError(f"{CONFIG_FILE}: has no pad_token_id, which the {GRAPH_SUFFIX} graphs need") from error


def _cache(config: ExportConfig) -> list[TensorSpec]:
    """Return the inputs of the cache that are keys, one for each layer."""
    return [spec for spec in config.inputs if spec.role == "past_key" and len(spec.axes) == 4]


def _settings(config: ExportConfig, generation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of genai_config.json.

    Args:
        config: the decoder.
        generation: content of generation_config.json.
    """
    text = config.text_config
    length = int(getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None) or 2048)
    model: dict[str, Any] = {
        "type": text.model_type if text.model_type in TYPES else "decoder",
        "vocab_size": config.vocabulary_size,
        "context_length": length,
        **_tokens(text, generation),
        "decoder": _decoder(config),
    }
    return {"model": model, "search": _search(length, generation)}


def _search(length: int, generation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a search, with those of generation_config.json."""
    search = {
        **{"do_sample": False, "early_stopping": True, "num_beams": 1, "num_return_sequences": 1},
        **{"min_length": 0, "max_length": length, "past_present_share_buffer": False},
        **{"temperature": 1.0, "top_k": 50, "top_p": 1.0, "repetition_penalty": 1.0, "length_penalty": 1.0},
    }
    given = {name: generation[name] for name in search if generation.get(name) is not None}
    fixed = {"past_present_share_buffer": False, "min_length": 0, "max_length": length}
    return {**search, **given, **fixed}


def _tokens(text: Any, generation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ids of special tokens; the padding id is the end's if there is none."""
    named = {
        kind: generation.get(f"{kind}_token_id", getattr(text, f"{kind}_token_id", None))
        for kind in ("bos", "eos", "pad")
    }
    ends = named["eos"] if isinstance(named["eos"], list) else [named["eos"]]
    end = ends[0] if ends[0] is not None else 0
    found = {
        "bos_token_id": named["bos"] if named["bos"] is not None else end,
        "eos_token_id": named["eos"] if named["eos"] is not None else end,
        "pad_token_id": named["pad"] if named["pad"] is not None else end,
    }
    return {name: list(value) if isinstance(value, list | tuple) else int(value) for name, value in found.items()}


def _decoder(config: ExportConfig) -> dict[str, Any]:
    keys = _cache(config)
    _, heads, _, head_size = keys[0].axes
    names = {spec.name for spec in config.inputs}
    inputs = {name: name for name in ("input_ids", "attention_mask", "position_ids") if name in names}
    text = config.text_config
    return {
        "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
        "filename": f"onnx/{config.graph}{GRAPH_SUFFIX}.onnx",
        "head_size": head_size,
        "hidden_size": int(text.hidden_size),
        "num_attention_heads": int(text.num_attention_heads),
        "num_key_value_heads": heads,
        "num_hidden_layers": len(keys),
        "inputs": {
            **inputs,
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
    }
