"""What the image does, as the Actions runner starts it and by hand."""

from __future__ import annotations

import time

import docker
import pytest
from docker.models.images import Image

from container.runs import Workspace, action_environment, as_action, by_hand, create

pytestmark = pytest.mark.container

ARTIFACTS = {"onnx/model.onnx", "torchscript/model.pt"}
TOKENIZER = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"}


def test_as_an_action(engine: docker.DockerClient, image: Image, workspace: Workspace) -> None:
    result = as_action(engine, image, workspace, model="checkpoint")
    assert result.exit_code == 0, result.said
    expected = {"hfexport.json", "config.json"} | ARTIFACTS | TOKENIZER
    assert workspace.written() == {f"hfexport-out/{name}" for name in expected}
    manifest = workspace.manifest
    assert manifest["verdict"] == "passed"
    assert {artifact["path"] for artifact in manifest["artifacts"]} == ARTIFACTS

    outputs, delimiters = workspace.outputs()
    assert outputs["verdict"] == "passed"
    assert outputs["output"] == "hfexport-out"
    assert outputs["manifest"] == "hfexport-out/hfexport.json"
    assert outputs["onnx"] == "hfexport-out/onnx/model.onnx"
    assert outputs["torchscript"] == "hfexport-out/torchscript/model.pt"
    assert 0 < float(outputs["max-abs-diff"]) < 1e-4
    assert all(len(delimiter) >= 16 for delimiter in delimiters)

    for path in ARTIFACTS:
        assert path in workspace.summary
    assert "| " in workspace.summary
    assert "InferenceSession" in workspace.summary
    assert "torch.jit.load" in workspace.summary or "load_torchscript" in workspace.summary
    log = result.stdout + result.stderr
    assert log.count("::group::") == log.count("::endgroup::") > 0
    assert "::error" not in log
    assert "Traceback" not in log


def test_delimiters_are_random(engine: docker.DockerClient, image: Image, workspace: Workspace) -> None:
    seen: list[str] = []
    for _ in range(2):
        (workspace.commands / "output").write_text("", encoding="utf-8")
        result = as_action(engine, image, workspace, model="checkpoint", opset="1")
        assert result.exit_code != 0, result.said
        seen += workspace.outputs()[1]
    assert seen
    assert len(set(seen)) == len(seen)


def test_wrong_inputs_are_all_reported(engine: docker.DockerClient, image: Image, workspace: Workspace) -> None:
    result = as_action(engine, image, workspace, model="missing", formats="onnx,torchscrpt", validate="perhaps")
    log = result.stdout + result.stderr
    assert result.exit_code == 2, result.said
    errors = [line for line in log.splitlines() if line.startswith("::error")]
    text = "\n".join(errors)
    assert "torchscrpt" in text
    assert "torchscript" in text
    assert "perhaps" in text
    assert "Traceback" not in log
    assert workspace.written() == set()


def test_failing_validation_leaves_nothing_finished(
    engine: docker.DockerClient, image: Image, workspace: Workspace
) -> None:
    result = as_action(engine, image, workspace, model="checkpoint", formats="onnx", atol="1e-12")
    log = result.stdout + result.stderr
    assert result.exit_code == 6, result.said
    assert "::error" in log
    assert "Traceback" not in log
    assert workspace.written() == {"hfexport-out/hfexport.json"}
    assert workspace.manifest["verdict"] == "failed"
    assert workspace.outputs()[0]["verdict"] == "failed"
    assert "failed" in workspace.summary


def test_by_hand(engine: docker.DockerClient, image: Image, workspace: Workspace) -> None:
    result = by_hand(engine, image, workspace.repository, ["--model", "checkpoint", "--formats", "torchscript"])
    assert result.exit_code == 0, result.said
    assert workspace.manifest["verdict"] == "passed"
    assert "hfexport-out/torchscript/model.pt" in workspace.written()
    assert "::" not in result.stdout + result.stderr


def test_help(engine: docker.DockerClient, image: Image, workspace: Workspace) -> None:
    result = by_hand(engine, image, workspace.repository, ["--help"])
    assert result.exit_code == 0, result.said
    assert "--model" in result.stdout


def test_stops_when_told_to(engine: docker.DockerClient, image: Image, workspace: Workspace) -> None:
    container = create(engine, image, workspace, environment=action_environment({"model": "checkpoint"}))
    try:
        container.start()
        deadline = time.monotonic() + 120
        while b"weights: model.safetensors" not in container.logs():
            assert time.monotonic() < deadline, container.logs().decode()
            time.sleep(0.2)
        container.stop(timeout=60)
        exit_code = container.wait(timeout=60)["StatusCode"]
        log = container.logs().decode()
    finally:
        container.remove(force=True)
    assert exit_code == 143, log
    assert "Traceback" not in log
    assert not {name for name in workspace.written() if not name.endswith("hfexport.json")}
