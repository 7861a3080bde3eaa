"""Variants as Transformers.js selects them by `dtype`, in Node: outputs close to the model's, and generated text.

A dtype counts only if every graph of the model has it: Transformers.js asks for the same one of all.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hfexport.backends.onnx.targets import TARGETS, Exported
from hfexport.backends.onnx.variants.make import make_variant
from hfexport.backends.onnx.variants.names import VARIANTS
from interop import test_optimum
from interop.made import DTYPES, Made, cosines
from interop.test_transformers_js import GREEDY, ask_peer

LOADERS: Mapping[str, tuple[str, str]] = {
    "extractor": ("AutoModel", "last_hidden_state"),
    "classifier": ("AutoModelForSequenceClassification", "logits"),
    "decoder": ("AutoModelForCausalLM", "logits"),
    "encoder-decoder": ("AutoModelForSeq2SeqLM", "logits"),
}
LEAST = {"fp16": 0.9999, "q8": 0.99, "int8": 0.99, "uint8": 0.99, "q4": 0.9, "q4f16": 0.9, "bnb4": 0.9}
"""Least mean cosine similarity to the model's output; the models have random weights."""


def question(export: Made, name: str, inputs: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """Return the question for the outputs of one call."""
    loader, output = LOADERS[name]
    given = {key: array.tolist() for key, array in inputs.items()}
    asked = {"ask": "run", "class": loader, "folder": str(export.output), "outputs": [output], "inputs": given}
    return {**asked, **changes}


@pytest.mark.parametrize("name", LOADERS)
def test_every_dtype_answers_as_the_model_does(name: str, made: Callable[[str], Made]) -> None:
    export = made(name)
    model = export.model()
    inputs = export.inputs(model)
    answers = ask_peer(*(question(export, name, inputs, dtype=dtype) for dtype in (*DTYPES, None)))
    expected = export.answer(model, inputs)
    found = [export.visible(answer[LOADERS[name][1]], inputs) for answer in answers]
    means = {dtype: float(cosines(rows, expected).mean()) for dtype, rows in zip(DTYPES, found, strict=False)}
    assert {dtype: mean for dtype, mean in means.items() if mean < LEAST[dtype]} == {}
    assert not np.array_equal(found[DTYPES.index("q4")], found[DTYPES.index("q8")])
    np.testing.assert_array_equal(found[-1], found[DTYPES.index("q8")])  # the default that the target writes


@pytest.mark.parametrize("name", ["decoder", "encoder-decoder"])
def test_every_dtype_generates_as_in_optimum(name: str, made: Callable[[str], Made], tmp_path: Path) -> None:
    """Both consumers choose the same tokens from the same files; those of fp16 are the model's."""
    export = made(name)
    model = export.model()
    inputs = {key: array for key, array in export.inputs(model).items() if not key.startswith("decoder")}
    np.savez(tmp_path / "inputs.npz", **inputs)  # type: ignore[arg-type]
    loader, _ = LOADERS[name]
    asked = {"ask": "generate", "folder": str(export.output), "settings": dict(GREEDY)}
    given = {key: array.tolist() for key, array in inputs.items()}
    answers = ask_peer(*({**asked, "class": loader, "inputs": given, "dtype": dtype} for dtype in DTYPES))
    peer = {**asked, "class": loader.replace("Auto", "ORT"), "inputs": str(tmp_path / "inputs.npz")}
    expected = test_optimum.ask_peer(*({**peer, "options": _file_names(name, dtype)} for dtype in DTYPES))
    assert dict(zip(DTYPES, answers, strict=True)) == dict(zip(DTYPES, expected, strict=True))
    tensors = {key: torch.from_numpy(array) for key, array in inputs.items()}
    assert answers[0] == model.generate(**tensors, **GREEDY).tolist()
    assert answers[0] != answers[DTYPES.index("q4")]


def _file_names(name: str, dtype: str) -> dict[str, str]:
    """Return the arguments by which Optimum loads a variant; a merged decoder must be named twice."""
    suffix = VARIANTS[dtype].file_suffix
    if name == "decoder":
        return {"file_name": f"model{suffix}.onnx"}
    decoder = f"decoder_model_merged{suffix}.onnx"
    return {
        "encoder_file_name": f"encoder_model{suffix}.onnx",
        "decoder_file_name": decoder,
        "decoder_with_past_file_name": decoder,
    }


def test_a_dtype_that_one_graph_lacks_is_refused(made: Callable[[str], Made], tmp_path: Path) -> None:
    export = made("encoder-decoder")
    shutil.copytree(export.output, tmp_path / "output")
    (tmp_path / "output" / "onnx" / "encoder_model_q4.onnx").unlink()
    broken = Made(export.checkpoint, tmp_path / "output", export.task)
    inputs = export.inputs(export.model())
    with pytest.raises(AssertionError, match="encoder_model_q4"):
        ask_peer(question(broken, "encoder-decoder", inputs, dtype="q4"))


def test_external_data_in_several_files_is_fetched(made: Callable[[str], Made], tmp_path: Path) -> None:
    export = made("classifier")
    model = export.model()
    inputs = export.inputs(model)
    shutil.copytree(export.output, tmp_path / "output")
    folder = tmp_path / "output" / "onnx"
    (folder / "model_quantized.onnx").unlink()
    files = make_variant(
        VARIANTS["q8"], folder / "model.onnx", folder / "model_quantized.onnx", external=True, chunk_bytes=30_000
    )
    assert [path.name for path in files][:3] == [
        "model_quantized.onnx",
        "model_quantized.onnx_data",
        "model_quantized.onnx_data_1",
    ]
    TARGETS["transformersjs"].write(Exported(tmp_path / "output", (), [folder / "model.onnx", *files], ["q8"]))
    external = Made(export.checkpoint, tmp_path / "output", export.task)
    inside, beside = ask_peer(
        question(export, "classifier", inputs, dtype="q8"), question(external, "classifier", inputs, dtype=None)
    )
    assert inside == beside
    settings = json.loads((tmp_path / "output" / "config.json").read_text())["transformers.js_config"]
    assert settings["use_external_data_format"] == {"model_quantized.onnx": len(files) - 1}
