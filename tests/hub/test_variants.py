"""An export with variants is published, found unchanged, verified from the Hub, and replaced by one with fewer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from hub.conftest import TOKEN, Finished
from local_hub.server import LocalHub

pytestmark = pytest.mark.thorough

FILES = ("onnx/model_fp16.onnx", "onnx/model_int8.onnx", "torchscript/model_frozen.pt")


def test_variants_on_the_hub(hub: LocalHub, run: Callable[..., Finished]) -> None:
    repository = hub.repositories["org/tiny"]

    def push(variants: str) -> Finished:
        return run(
            *("--model", "org/tiny", "--push-to-hub", "true"),
            *("--variants", variants, "--min-similarity", "0.5"),
            HF_TOKEN=TOKEN,
        )

    done = push("fp16,int8,frozen")
    assert done.exit_code == 0, done.said
    head = repository.head()
    manifest = _manifest(hub)
    assert [path for entry in manifest["variants"] for path in entry["paths"]] == list(FILES)
    for entry in manifest["variants"]:
        (file,) = entry["files"]
        assert len(hub.read("org/tiny", file["path"])) == file["size_bytes"]
    card = hub.read("org/tiny", "README.md").decode()
    assert "### Variants" in card
    for path, how in zip(FILES, ('dtype: "fp16"', 'dtype: "int8"', "torch.jit.load"), strict=True):
        (row,) = [line for line in card.splitlines() if line.startswith("| ") and f"| {path} |" in line]
        assert how in row

    again = push("frozen,int8,fp16")
    assert again.exit_code == 0, again.said
    assert "nothing to do" in again.said
    assert repository.head() == head

    verified = run("verify", "org/tiny", "--min-similarity", "0.5", HF_TOKEN=TOKEN)
    assert verified.exit_code == 0, verified.said

    fewer = push("fp16")
    assert fewer.exit_code == 0, fewer.said
    present = repository.files()
    assert [path for path in FILES if path in present] == [FILES[0]]
    assert "model_int8" not in hub.read("org/tiny", "README.md").decode()
    assert [entry["name"] for entry in _manifest(hub)["variants"]] == ["fp16"]


def _manifest(hub: LocalHub) -> dict[str, Any]:
    return dict(json.loads(hub.read("org/tiny", "hfexport.json")))
