"""An output folder as a run leaves it, made by hand: publishing does not look into artifacts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hfexport.errors import PublishError
from hfexport.hub.client import Hub
from hfexport.hub.publish import Destination, Publisher, open_publisher
from hfexport.hub.source import Source, locate
from hfexport.manifest.entries import Manifest, check_manifest, new_manifest, write_manifest
from hfexport.run.inputs import Inputs, recorded
from local_hub.server import LocalHub

__all__ = ["ARTIFACTS", "make_output", "publisher_of", "source_of"]

ARTIFACTS: Mapping[str, bytes] = {"onnx/model.onnx": b"a graph", "torchscript/model.pt": b"a trace"}
ALONG = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def make_output(
    folder: Path, source: Source, files: Mapping[str, bytes], artifacts: Mapping[str, bytes] = ARTIFACTS
) -> Manifest:
    """Write the output of an export of `source` into `folder`; returns its manifest.

    Args:
        folder: made if it is not there.
        source: of the checkpoint.
        files: of the checkpoint, by name.
        artifacts: content by path; the folder says the format.
    """
    formats = tuple(dict.fromkeys(path.split("/")[0] for path in artifacts))
    manifest = new_manifest(recorded(Inputs(formats=formats)), "2026-01-01T00:00:00+00:00")
    along = {name: files[name] for name in ALONG if name in files}
    for path, content in {**artifacts, **along}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    manifest |= {
        **{"verdict": "passed", "task": "sequence-classification", "dtype": "fp32"},
        "source": {
            **{"model": source.given, "hub": None if source.model is None else source.model.to_dict()},
            **{"model_type": "bert", "architectures": ["BertForSequenceClassification"], "dtype": "fp32"},
            "files": [_file(name, files[name]) for name in ("config.json", "model.safetensors")],
            **{"weight_format": "safetensors", "conversion": None, "adapter": None},
        },
        "artifacts": [_artifact(name, artifacts) for name in formats],
        "files": [_file(name, content) for name, content in along.items()],
    }
    check_manifest(manifest)
    write_manifest(manifest, folder)
    return manifest


def _file(path: str, content: bytes) -> dict[str, Any]:
    return {"path": path, "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _artifact(name: str, artifacts: Mapping[str, bytes]) -> dict[str, Any]:
    files = {path: content for path, content in artifacts.items() if path.startswith(f"{name}/")}
    tolerance = {"atol": 2e-5, "rtol": 1e-4}
    return {
        **{"format": name, "path": next(iter(files)), "fixed_sizes": None, "limits": {}, "details": {}},
        "files": [_file(path, content) for path, content in files.items()],
        "inputs": [{"name": "input_ids", "dtype": "int64", "axes": ["batch", "sequence"]}],
        "outputs": [{"name": "logits", "dtype": "float32", "axes": ["batch", 3]}],
        "validation": {
            **{"verdict": "passed", "reason": "", "session": "default", "tolerance": tolerance},
            **{"max_abs_diff": 1e-7, "max_rel_diff": 1e-6, "checks": [], "probes": []},
        },
    }


def source_of(hub: LocalHub, model: str = "org/tiny", revision: str = "main", subfolder: str = "") -> Source:
    """A model of the local Hub, located."""
    return locate(model, revision, subfolder, lambda: Hub(None, endpoint=hub.url))


def publisher_of(
    hub: LocalHub,
    source: Source,
    token: str,
    *,
    note: Callable[[str], None] = lambda _: None,
    sleep: Callable[[float], None] = lambda _: None,
    repository: str = "org/tiny",
    **options: Any,
) -> Publisher:
    """A publisher that does not pause between attempts."""

    def client() -> Hub:
        return Hub(token, endpoint=hub.url, failure=PublishError, note=note, sleep=sleep)

    return open_publisher(client, Destination(repository, **options), source, note)
