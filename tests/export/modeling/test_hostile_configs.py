"""A config.json may ask for anything: what comes of it is a model that loads, or one error, soon and in little memory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hfexport.cli import main as cli
from hfexport.errors import CheckpointError
from hfexport.modeling import untrusted_config as building
from hfexport.modeling.untrusted_config import refuse_implausible
from tiny import make_checkpoint

FUZZ = """
import json, random, sys
from pathlib import Path
from hfexport.checkpoint import look_over, read_checkpoint
from hfexport.errors import HfexportError
from hfexport.run.inputs import Inputs
from hfexport.modeling.load import load_model
from hfexport._internal.process import Limits
from hfexport.run.selection import find_config, look_up

Limits(memory_bytes=3 * 2**30, cpu_s=600).impose()
VALUES = (-1, 0, 1, 2, 3, 7, 100, 4095, 2**14, 2**20, 2**27, 2**31, 2**39, 2**40, 1e30, "x", None, [], [2**30], {})
ended = {"loads": 0, "exit 3": 0, "exit 4": 0}
for seed in range(80):
    draw = random.Random(seed)
    folder = Path(draw.choice(sys.argv[1:]))
    path = folder / "config.json"
    whole = path.read_text()
    config = json.loads(whole)
    changed = {draw.choice(sorted(config)): draw.choice(VALUES) for _ in range(draw.choice((1, 1, 2)))}
    changed.pop("model_type", None)
    path.write_text(json.dumps({**config, **changed}))
    try:
        contents = look_over(folder)
        checkpoint = read_checkpoint(contents)
        found = find_config(checkpoint, look_up(contents, Inputs(task="default")), Inputs(task="default"), "fp32", print)
        load_model(folder, found, "fp32")
        ended["loads"] += 1
    except HfexportError as error:
        assert error.exit_code in (3, 4), (changed, error)
        ended[f"exit {error.exit_code}"] += 1
    except Exception as error:
        raise AssertionError(f"{folder.name} {changed}") from error
    path.write_text(whole)
print(ended)
"""


def _changed(folder: Path, model_type: str, **values: Any) -> Path:
    make_checkpoint(folder, model_type, "default")
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **values}))
    return folder


def test_any_number_in_a_config_ends_soon_and_in_one_error(tmp_path: Path) -> None:
    """In a process of its own, which may have 3 GB."""
    folders = [
        str(make_checkpoint(tmp_path / name, name, "default"))
        for name in ("bert", "gpt2", "llama", "t5", "vit", "swin")
    ]
    command = [sys.executable, "-c", FUZZ, *folders]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr
    assert "'exit 3': 0" not in ran.stdout


@pytest.mark.parametrize(
    ("model_type", "values"),
    [
        ("bert", {"hidden_size": 2**39}),
        ("bert", {"vocab_size": 2**36}),
        ("gpt2", {"n_positions": 2**36}),
        ("llama", {"num_key_value_heads": 2**14}),
    ],
)
def test_a_model_far_larger_than_its_weights_is_refused_before_it_takes_memory(
    model_type: str, values: dict[str, int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoint = _changed(tmp_path / "checkpoint", model_type, **values)
    code = cli.main(["--model", str(checkpoint), "--formats", "onnx", "--output", str(tmp_path / "out")])
    said = capfd.readouterr().err
    assert code == 3, said
    assert str(checkpoint) in said
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["hfexport.json"]


def test_a_model_that_takes_too_long_to_build_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "bert", "default")
    monkeypatch.setattr(building, "BUILD_TIMEOUT_S", 0.2)

    def endless() -> Any:
        while True:
            pass

    with pytest.raises(CheckpointError, match=r"config\.json: describes a model that is not built after 0\.2 s"):
        refuse_implausible(checkpoint, endless)


def test_a_tensorflow_checkpoint_or_an_adapters_base_with_such_a_config(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from adapters import make_adapter
    from tensorflow_checkpoints import COMMITTED

    folder = Path(shutil.copytree(COMMITTED / "TFBertForSequenceClassification", tmp_path / "tf"))
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "hidden_size": 2**39}))
    base = make_checkpoint(tmp_path / "base", "bert", "default")
    adapter = make_adapter(tmp_path / "lora", base, "AutoModel", "FEATURE_EXTRACTION")
    path = base / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "intermediate_size": 2**30}))
    greedy = Path(shutil.copytree(adapter, tmp_path / "greedy"))
    path = greedy / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "r": 2**30}))
    good = make_checkpoint(tmp_path / "good", "bert", "default")
    for options, said in (
        (("--model", str(folder)), "describes a model that cannot be built"),
        (("--model", str(adapter), "--base-model", str(base)), "describes a model of"),
        (("--model", str(greedy), "--base-model", str(good)), "allocate memory"),
    ):
        assert cli.main([*options, "--output", str(tmp_path / "out")]) == 3
        assert said in capfd.readouterr().err
