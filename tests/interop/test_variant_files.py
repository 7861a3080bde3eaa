"""Variants by the names of their files: sentence-transformers, Optimum, ONNX Runtime, and ONNX Runtime 1.16.3.

docs/variants.md says which version of ONNX Runtime runs which variant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from hfexport.backends.onnx.variants.names import VARIANTS
from hfexport.cli.main import main
from interop.made import DTYPES, FILE_NAMES, Made, cosines
from interop.test_older_runtime import ask_peer as ask_older
from interop.test_optimum import ask_peer
from tiny import make_checkpoint

LEAST: Mapping[str, float] = {"exact": 0.99999, "half": 0.9999, "integers": 0.99, "blocks": 0.9}
"""Least mean cosine similarity by the kind of limits; the models have random weights."""
ALL = (*FILE_NAMES, *DTYPES)


def _worse(means: Mapping[str, float]) -> dict[str, float]:
    return {name: mean for name, mean in means.items() if mean < LEAST[VARIANTS[name].limits]}


def test_sentence_transformers_load_each_file(made: Callable[[str], Made]) -> None:
    export = made("extractor")
    asked = {"ask": "embed", "texts": ["the cat sat on the mat.", "a good film", "bad!"]}
    files = [{"file_name": f"onnx/model{VARIANTS[name].file_suffix}.onnx"} for name in ALL]
    expected, *found = ask_peer(
        {**asked, "folder": str(export.checkpoint), "backend": "torch"},
        *({**asked, "folder": str(export.output), "backend": "onnx", **file} for file in files),
    )
    assert np.shape(expected) == (3, 10)
    means = {
        name: float(cosines(np.array(rows), np.array(expected)).mean()) for name, rows in zip(ALL, found, strict=True)
    }
    assert _worse(means) == {}
    assert found[ALL.index("q4")] != found[ALL.index("q8")]


@pytest.mark.parametrize(
    ("name", "loader", "variants"),
    [
        ("extractor", "ORTModelForFeatureExtraction", ALL),
        ("classifier", "ORTModelForSequenceClassification", DTYPES),
    ],
)
def test_optimum_loads_each_file(
    name: str, loader: str, variants: tuple[str, ...], made: Callable[[str], Made], tmp_path: Path
) -> None:
    export = made(name)
    model = export.model()
    inputs = export.inputs(model)
    np.savez(tmp_path / "inputs.npz", **inputs)  # type: ignore[arg-type]
    asked = {"ask": "run", "class": loader, "folder": str(export.output), "inputs": str(tmp_path / "inputs.npz")}
    files = [{"options": {"file_name": f"model{VARIANTS[variant].file_suffix}.onnx"}} for variant in variants]
    answers = ask_peer(*({**asked, **file} for file in files))
    expected = export.answer(model, inputs)
    means = {
        variant: float(cosines(export.visible(answer, inputs), expected).mean())
        for variant, answer in zip(variants, answers, strict=True)
    }
    assert _worse(means) == {}


@pytest.fixture(scope="module")
def opset_17(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Return the folder of the ONNX files of an encoder with all variants, and inputs."""
    folder = tmp_path_factory.mktemp("older")
    checkpoint = make_checkpoint(folder / "checkpoint", "bert", "default", hidden_size=64, intermediate_size=128)
    asked = ["--model", str(checkpoint), "--formats", "onnx", "--opset", "17", "--variants", ",".join(ALL)]
    assert main([*asked, "--validate", "off", "--output", str(folder / "output")]) == 0
    ids = np.random.default_rng(0).integers(5, 60, (2, 7))
    return folder / "output" / "onnx", {
        **{"input_ids": ids, "attention_mask": np.ones_like(ids)},
        "token_type_ids": np.zeros_like(ids),
    }


NEEDS_NEWER = {"q4": "accuracy_level", "fused": "relative_position_bias"}
"""Variants that ONNX Runtime 1.16.3 refuses, and what its error names: attributes and sizes of newer operators."""


@pytest.mark.parametrize("name", ALL)
def test_an_older_runtime_runs_the_files_that_the_docs_name(name: str, opset_17: tuple[Path, Any]) -> None:
    folder, inputs = opset_17
    model = folder / f"model{VARIANTS[name].file_suffix}.onnx"
    answer = ask_older(model, inputs)
    if name in NEEDS_NEWER:
        assert answer.returncode != 0 and NEEDS_NEWER[name] in answer.stderr
        return
    assert answer.returncode == 0, answer.stderr[-2000:]
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (expected,) = session.run(["last_hidden_state"], inputs)
    with np.load(folder / "outputs.npz") as found:
        assert cosines(found["last_hidden_state"], expected).min() > 0.9999
