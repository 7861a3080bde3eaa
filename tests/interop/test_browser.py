"""Exports with `target: transformersjs` in Chromium, by Transformers.js and ONNX Runtime Web on WebAssembly.

All files come from a server on this machine. Transformers.js and Playwright live in environments of their own, which
`make interop-test` makes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interop.made import Made, cosines
from interop.test_transformers_js import ENVIRONMENT, GREEDY, ask_peer
from interop.test_transformers_js_dtypes import LEAST, LOADERS

ROOT = Path(__file__).resolve().parents[2]
BROWSER = ROOT / ".venv-browser"
BROWSE = Path(__file__).with_name("browse.cjs")


def browse(folders: Mapping[str, Path], jobs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the answers of a page, and what it requested."""
    node = BROWSER / "bin" / "node"
    assert node.exists() and ENVIRONMENT.exists(), "an environment is missing; `make interop-test` makes it"
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert browser is not None, "no Chromium was found (Debian: apt install chromium)"
    asked = json.dumps({"folders": {name: str(folder) for name, folder in folders.items()}, "jobs": jobs})
    command = [node, BROWSE, browser, ENVIRONMENT / "node_modules"]
    env = {**os.environ, "NODE_PATH": str(BROWSER / "node_modules")}
    result = subprocess.run(command, input=asked, capture_output=True, text=True, check=False, env=env)
    assert result.returncode == 0, result.stderr[-4000:]
    found: dict[str, Any] = json.loads(result.stdout)
    assert found["outside"] == []
    return found


def job(export: Made, name: str, model: Any, dtype: str | None, **changes: Any) -> dict[str, Any]:
    """Return the question for the first output; without a dtype, config.json has it."""
    loader, output = LOADERS[name]
    inputs = {key: array.tolist() for key, array in export.inputs(model).items()}
    options = {"device": "wasm"} if dtype is None else {"device": "wasm", "dtype": dtype}
    asked = {"ask": "run", "model": name, "class": loader, "output": output, "inputs": inputs, "options": options}
    return {**asked, **changes}


@pytest.mark.parametrize("name", ["extractor", "decoder"])
def test_a_browser_answers_as_the_model_does(name: str, made: Callable[[str], Made]) -> None:
    export = made(name)
    model = export.model()
    dtypes = (None, "fp32", "fp16", "uint8", "q4", "q4f16", "bnb4")
    found = browse({name: export.output}, [job(export, name, model, dtype) for dtype in dtypes])
    inputs = export.inputs(model)
    expected = export.answer(model, inputs)
    for dtype, answer in zip(dtypes, found["answers"], strict=True):
        rows = export.visible(answer, inputs)
        if dtype == "fp32":
            np.testing.assert_allclose(rows, expected, atol=1e-4)
        assert cosines(rows, expected).mean() >= LEAST.get(dtype or "q8", 0.9999), dtype
    read = [address.rpartition("/")[2] for address in found["read"] if address.endswith(".onnx")]
    assert read[0] == "model_quantized.onnx"


def test_a_browser_generates_as_node_does(made: Callable[[str], Made]) -> None:
    export = made("decoder")
    model = export.model()
    generate = job(export, "decoder", model, None, ask="generate", settings=dict(GREEDY))
    plain = job(export, "decoder", model, "fp32", ask="generate", settings=dict(GREEDY))
    by_browser = browse({"decoder": export.output}, [generate, plain])["answers"]
    asked = {"ask": "generate", "class": "AutoModelForCausalLM", "folder": str(export.output)}
    given = {"inputs": generate["inputs"], "settings": dict(GREEDY)}
    assert by_browser == ask_peer({**asked, **given, "dtype": None}, {**asked, **given, "dtype": "fp32"})


def test_a_file_that_is_missing_is_an_error(made: Callable[[str], Made], tmp_path: Path) -> None:
    export = made("extractor")
    shutil.copytree(export.output, tmp_path / "output")
    (tmp_path / "output" / "onnx" / "model_quantized.onnx").unlink()
    with pytest.raises(AssertionError, match="model_quantized.onnx"):
        browse({"extractor": tmp_path / "output"}, [job(export, "extractor", export.model(), None)])
