"""Image models: sizes that an artifact cannot take, and packages that a backbone needs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from hfexport.cli.main import main
from tiny import make_checkpoint


def _export_without_class(model_type: str, folder: Path) -> Path:
    """Export an image classifier whose config names no class; return the output folder."""
    checkpoint = make_checkpoint(folder / "checkpoint", model_type, "image-classification")
    config = json.loads((checkpoint / "config.json").read_text())
    del config["architectures"]
    (checkpoint / "config.json").write_text(json.dumps(config))
    command = ["--model", str(checkpoint), "--task", "image-classification", "--formats", "onnx"]
    assert main([*command, "--output", str(folder / "output")]) == 0
    return folder / "output"


@pytest.fixture(scope="module")
def levit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _export_without_class("levit", tmp_path_factory.mktemp("levit"))


@pytest.fixture(scope="module")
def session(levit: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(levit / "onnx" / "model.onnx")


def test_an_image_of_the_configured_size_is_answered_in_any_number(session: onnxruntime.InferenceSession) -> None:
    (logits,) = session.run(None, {"pixel_values": np.zeros((5, 3, 32, 32), dtype=np.float32)})
    assert logits.shape == (5, 3)


@pytest.mark.parametrize("size", [(32, 40), (64, 16), (40, 40)])
def test_an_image_of_another_size_is_refused(size: tuple[int, int], session: onnxruntime.InferenceSession) -> None:
    with pytest.raises(InvalidArgument, match="invalid dimensions"):
        session.run(None, {"pixel_values": np.zeros((1, 3, *size), dtype=np.float32)})


def test_a_backbone_of_a_package_that_is_not_installed_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "detr", "object-detection")
    path = checkpoint / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    # As the first published checkpoints say it.
    config = {**config, "backbone_config": None, "backbone": "resnet50", "use_timm_backbone": True}
    path.write_text(json.dumps(config), encoding="utf-8")
    assert main(["--model", str(checkpoint), "--output", str(tmp_path / "output"), "--formats", "onnx"]) == 4
    assert (
        "needs a Python package that is not installed: TimmBackbone requires the timm library"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "output" / "onnx").exists()


def test_a_task_of_several_classes_needs_no_class_in_the_config(levit: Path, tmp_path: Path) -> None:
    for output in (levit, _export_without_class("deit", tmp_path)):
        manifest = json.loads((output / "hfexport.json").read_text(encoding="utf-8"))
        assert (manifest["verdict"], manifest["task"]) == ("passed", "image-classification")
