"""Models whose class is code in the checkpoint's own folder: exported only for who says that it may run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import transformers

from hfexport.cli.main import main
from tiny import make_checkpoint

CODE = """
from transformers import BertConfig, BertForSequenceClassification

class ParrotConfig(BertConfig):
    model_type = "parrot"

class ParrotForSequenceClassification(BertForSequenceClassification):
    config_class = ParrotConfig

    def forward(self, input_ids, attention_mask=None, **kwargs):
        outputs = super().forward(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        outputs.logits = outputs.logits * 3.0
        return outputs
"""

OWN = """
from hfexport.onnx import OnnxConfig

class Parrot(OnnxConfig):
    @property
    def inputs(self):
        axes = {0: "batch", 1: "sequence"}
        return {"input_ids": axes, "attention_mask": axes}
"""


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = make_checkpoint(tmp_path / "checkpoint", "bert", "sequence-classification")
    (folder / "modeling_parrot.py").write_text(CODE)
    config = json.loads((folder / "config.json").read_text())
    names = {
        "AutoConfig": "modeling_parrot.ParrotConfig",
        "AutoModelForSequenceClassification": "modeling_parrot.ParrotForSequenceClassification",
    }
    changes = {"model_type": "parrot", "architectures": ["ParrotForSequenceClassification"], "auto_map": names}
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    # Code of checkpoints is copied there before it runs; the children look in the same place.
    modules = tmp_path / "modules"
    monkeypatch.setenv("HF_MODULES_CACHE", str(modules))
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(modules))
    return folder


def _run(checkpoint: Path, *more: str) -> tuple[int, dict]:  # type: ignore[type-arg]
    output = checkpoint.parent / "output"
    code = main(["--model", str(checkpoint), "--output", str(output), "--formats", "onnx", *more])
    return code, json.loads((output / "hfexport.json").read_text())


def test_it_does_not_run_unasked(checkpoint: Path) -> None:
    code, manifest = _run(checkpoint)
    assert code == 4
    assert "'parrot' in config.json is not an architecture of transformers" in manifest["error"]["message"]
    assert "--trust-remote-code" in manifest["error"]["remedy"]
    assert not (checkpoint.parent / "modules").exists()


@pytest.mark.parametrize("own", [False, True], ids=["inferred", "own class"])
def test_it_is_exported_if_trusted(own: bool, checkpoint: Path, request: pytest.FixtureRequest) -> None:
    if own:  # the other case has processes of its own
        request.getfixturevalue("in_this_process")
    file = checkpoint.parent / "mine.py"
    file.write_text(OWN)
    more = ("--export-config", f"{file}:Parrot") if own else ()
    code, manifest = _run(checkpoint, "--trust-remote-code", *more)
    assert code == 0
    assert manifest["verdict"] == "passed"
    assert manifest["interface"] == (f"{file}:Parrot" if own else "inferred from the model")
    names = [entry["name"] for entry in manifest["artifacts"][0]["inputs"]]
    assert names == ["input_ids", "attention_mask"]


def test_code_in_another_repository_is_not_run_where_transformers_has_the_model(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], in_this_process: None
) -> None:
    path = checkpoint / "config.json"
    config = json.loads(path.read_text())
    config["auto_map"] = {name: f"owner/code--{where}" for name, where in config["auto_map"].items()}
    path.write_text(json.dumps(config))
    code, manifest = _run(checkpoint, "--trust-remote-code")
    assert code == 4
    assert "takes the model's code from another repository, owner/code" in manifest["error"]["message"]
    native = {"model_type": "bert", "architectures": ["BertForSequenceClassification"]}
    path.write_text(json.dumps(config | native))
    code, manifest = _run(checkpoint, "--trust-remote-code", "--validate", "off")
    assert (code, manifest["task"]) == (0, "sequence-classification")
    assert "code in owner/code, which is not run: transformers has bert itself" in capsys.readouterr().err
