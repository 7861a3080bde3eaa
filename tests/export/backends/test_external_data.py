"""Weights past the 2 GB that a protobuf message holds: at their real size, from a file that is mostly holes."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import onnx
import pytest
from safetensors import safe_open

from hfexport.cli.main import main
from tiny import CONFIGS, make_checkpoint

EMBEDDINGS = "distilbert.embeddings.word_embeddings.weight"
WIDTH = int(CONFIGS["distilbert"]["dim"])
VOCABULARY = (2**31 + 2**27) // (4 * WIDTH)
"""Tokens, so many that their embeddings alone pass 2 GB."""


def grow_embeddings(checkpoint: Path) -> None:
    """Give the model a vocabulary of real size: the embeddings it has come first, then zeros that take no space."""
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "vocab_size": VOCABULARY}))
    path = checkpoint / "model.safetensors"
    with safe_open(path, "np") as file:
        tensors = {name: file.get_tensor(name) for name in sorted(file.keys(), key=lambda name: name == EMBEDDINGS)}
    header, end = {}, 0
    for name, tensor in tensors.items():
        shape = [VOCABULARY, WIDTH] if name == EMBEDDINGS else list(tensor.shape)
        size = 4 * VOCABULARY * WIDTH if name == EMBEDDINGS else tensor.nbytes
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(tensor.tobytes())
        file.truncate(8 + len(text) + end)


@pytest.mark.thorough
def test_more_than_2_gb_go_beside_the_graph_and_run(tmp_path: Path) -> None:
    checkpoint, output = (
        make_checkpoint(tmp_path / "checkpoint", "distilbert", "sequence-classification"),
        tmp_path / "output",
    )
    grow_embeddings(checkpoint)
    weights = checkpoint / "model.safetensors"
    assert weights.stat().st_size > 2**31 > 10 * 512 * weights.stat().st_blocks
    asked = ["--model", str(checkpoint), "--task", "sequence-classification", "--formats", "onnx"]
    assert main([*asked, "--output", str(output)]) == 0

    manifest = json.loads((output / "hfexport.json").read_text())
    (artifact,) = manifest["artifacts"]
    assert manifest["verdict"] == "passed" and artifact["details"]["external_data"]
    assert [file["path"] for file in artifact["files"]] == ["onnx/model.onnx", "onnx/model.onnx_data"]
    graph, data = (file["size_bytes"] for file in artifact["files"])
    assert graph < 2**20 and data > 2**31
    onnx.checker.check_model(output / "onnx" / "model.onnx")
    locations = {
        entry.value
        for tensor in onnx.load(output / "onnx" / "model.onnx", load_external_data=False).graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    assert locations == {"model.onnx_data"}
