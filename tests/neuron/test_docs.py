"""What docs/neuron.md shows runs in the SDK's environment and answers as the model."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from neuron.conftest import ROOT, WITH_DEVICE, Exporter


def post(address: str, texts: list[str], server: subprocess.Popen[bytes]) -> Any:
    """The server's answer, once it listens."""
    request = urllib.request.Request(address, json.dumps(texts).encode())
    while True:
        try:
            with urllib.request.urlopen(request) as answer:
                return json.load(answer)
        except urllib.error.URLError as error:
            assert isinstance(error.reason, ConnectionRefusedError) and server.poll() is None
            time.sleep(0.1)


def test_the_server_of_the_documentation_answers_as_the_model(exporter: Exporter) -> None:
    checkpoint = exporter.checkpoint("bert", "sequence-classification", tokenizer=True)
    done = exporter.run(checkpoint, "--batch-size", "4", "--validate", "off", stand_in=WITH_DEVICE)
    assert done.code == 0, done.said
    (exporter.folder / "hfexport-out").symlink_to(done.folder)
    (code,) = re.findall(r"```python\n(# serve\.py\n.*?)```", (ROOT / "docs/neuron.md").read_text(), re.DOTALL)
    (exporter.folder / "serve.py").write_text(code)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    texts = ["the cat sat on the mat", "good"]
    command = [exporter.python, "serve.py", str(port)]
    with subprocess.Popen(command, cwd=exporter.folder, stderr=subprocess.DEVNULL) as server:
        try:
            answer = post(f"http://127.0.0.1:{port}", texts, server)
        finally:
            server.kill()
    given = PreTrainedTokenizerFast.from_pretrained(checkpoint)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        wanted = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()(**given)
    np.testing.assert_allclose(answer["logits"], wanted.logits.numpy(), atol=5e-2)
