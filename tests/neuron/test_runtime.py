"""The run time that an artifact carries, in the SDK's interpreter, which cannot import hfexport."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

from hfexport.hub.publish.card import hub_snippet
from hfexport.manifest.summary import job_summary, load_snippet
from hub.conftest import hub_environment
from local_hub.server import LocalHub
from neuron.conftest import WITH_DEVICE, Exported, Exporter

PRELUDE = """
import json, sys
import numpy as np
sys.path.insert(0, {neuron!r})
from hfexport_neuron import load
model = load({neuron!r})
assert "hfexport" not in sys.modules
"""


def run(python: Path, folder: Path, code: str) -> Any:
    program = PRELUDE.format(neuron=str(folder / "neuron")) + code
    done = subprocess.run([python, "-I", "-c", program], capture_output=True, text=True, cwd="/", check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_shorter_inputs_are_padded_and_outputs_cut_back(exporter: Exporter) -> None:
    checkpoint = exporter.checkpoint("bert", "sequence-classification")
    done = exporter.run(checkpoint, "--batch-size", "4", stand_in=WITH_DEVICE)
    assert done.code == 0, done.said
    ids = [[5, 6, 7, 8, 9], [10, 11, 12, 0, 0]]
    mask = [[1] * 5, [1, 1, 1, 0, 0]]
    code = (
        f"given = dict(input_ids=np.array({ids}), attention_mask=np.array({mask}), token_type_ids=np.zeros((2, 5), int))\n"
        "outputs = model(**given)\n"
        "errors = []\n"
        "for wrong in (dict(given, input_ids=np.ones((2, 25), int)), dict(given, surplus=np.ones(1)), {}):\n"
        "    try: model(**wrong)\n"
        "    except ValueError as error: errors.append(str(error))\n"
        "print(json.dumps([outputs['logits'].tolist(), errors]))\n"
    )
    logits, errors = run(exporter.python, done.folder, code)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    with torch.no_grad():
        wanted = model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask)).logits.numpy()
    assert np.shape(logits) == (2, 3)
    np.testing.assert_allclose(logits, wanted, atol=5e-2)
    assert len(errors) == 3 and "surplus" in errors[1] and "missing: input_ids" in errors[2]


def run_snippet(python: Path, snippet: str, shown: str, folder: Path, env: dict[str, str]) -> Any:
    program = f"{snippet}\nimport json\nprint(json.dumps({shown}))\n"
    done = subprocess.run(
        [python, "-I", "-c", program], capture_output=True, text=True, cwd=folder, env=env, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def snippet_runs(exporter: Exporter, done: Exported, shown: str) -> list[Any]:
    """What the job summary's snippet gives in the output folder, and the model card's from a Hub."""
    snippet = load_snippet(done.artifact, done.manifest)
    assert snippet in job_summary(done.manifest)
    from_folder = run_snippet(exporter.python, snippet, shown, done.folder, {})
    with LocalHub() as hub:
        hub.add("org/tiny", {f"exports/{name}": (done.folder / name).read_bytes() for name in done.files})
        home = exporter.folder / "home"
        home.mkdir()
        snippet = hub_snippet(done.artifact, done.manifest, "org/tiny", "exports/")
        from_hub = run_snippet(exporter.python, snippet, shown, home, hub_environment(hub, home))
    return [from_folder, from_hub]


@pytest.mark.parametrize(
    ("model_type", "task", "shape"),
    [
        ("bert", "token-classification", [1, 8, 3]),  # of (2, 24)
        ("vit", "image-classification", [1, 3]),
        ("gpt2", "sequence-classification", [1, 3]),  # it cannot be padded
    ],
)
def test_the_snippets_load_run_pad_and_cut(exporter: Exporter, model_type: str, task: str, shape: list[int]) -> None:
    padding = {"pad_token_id": None} if model_type == "gpt2" else {}
    checkpoint = exporter.checkpoint(model_type, task, **padding)
    batch = "1" if padding else "2"
    options = ("--task", task, "--batch-size", batch, "--validate", "off")
    done = exporter.run(checkpoint, *options, stand_in=WITH_DEVICE)
    assert done.code == 0, done.said
    assert snippet_runs(exporter, done, "list(outputs['logits'].shape)") == [shape, shape]


def test_the_snippets_of_an_encoder_decoder_write_text(exporter: Exporter) -> None:
    checkpoint = exporter.checkpoint("marian", "seq2seq-lm")
    options = ("--neuron-decoder-length", "12", "--neuron-beams", "2", "--validate", "off")
    done = exporter.run(checkpoint, *options, stand_in=WITH_DEVICE)
    assert done.code == 0, done.said
    model = AutoModelForSeq2SeqLM.from_pretrained(checkpoint).eval()
    read = torch.zeros((1, 8), dtype=torch.int64)
    wanted = model.generate(input_ids=read, attention_mask=torch.ones_like(read), max_length=12)
    assert snippet_runs(exporter, done, "tokens.tolist()") == [wanted.tolist()] * 2


@pytest.mark.parametrize("beams", [1, 4])
def test_any_number_of_texts_and_beams_is_written(exporter: Exporter, beams: int) -> None:
    checkpoint = exporter.checkpoint("marian", "seq2seq-lm")
    options = ("--batch-size", "2", "--neuron-decoder-length", "10", "--neuron-beams", "2", "--validate", "off")
    done = exporter.run(checkpoint, *options, stand_in=WITH_DEVICE)
    assert done.code == 0, done.said
    ids = [[5, 6, 7, 8, 9, 0], [10, 11, 12, 0, 100, 100], [20, 0, 100, 100, 100, 100]]
    mask = [[int(token != 100) for token in row] for row in ids]
    code = (
        "import torch\n"
        f"given = dict(input_ids=torch.tensor({ids}), attention_mask=torch.tensor({mask}))\n"
        f"tokens = model.generate(**given, num_beams={beams}, do_sample=False, max_length=10)\n"
        "refused = ''\n"
        "try: model.generate(**given, max_length=11)\n"
        "except ValueError as error: refused = str(error)\n"
        "print(json.dumps([tokens.tolist(), refused]))\n"
    )
    tokens, refused = run(exporter.python, done.folder, code)
    model = AutoModelForSeq2SeqLM.from_pretrained(checkpoint).eval()
    given = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
    wanted = model.generate(**given, num_beams=beams, do_sample=False, max_length=10)
    assert refused == "at most 10 tokens can be generated: the decoder was compiled for that many"
    assert len(tokens) == 3
    assert tokens == wanted.tolist()
