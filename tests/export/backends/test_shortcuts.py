"""Runs from templates without torch: what they import, and how a wrong shortcut is found out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hfexport.backends.origins import Origins
from hfexport.backends.templates import SHORTCUT_SUFFIX, Templates, settle
from hfexport.checkpoint import look_over
from hfexport.cli.main import main
from hfexport.run.describing import _Notes as Notes
from hfexport.run.inputs import Inputs
from hfexport.run.pipeline import Run
from hfexport.run.warm import open_shortcuts
from tiny import make_checkpoint

PROGRAM = """
import sys
from hfexport.cli.main import main
code = main(sys.argv[1:])
heavy = [name for name in ("torch", "transformers", "onnxscript", "onnxruntime") if name in sys.modules]
print("imported:", heavy, "exit code:", code, file=sys.stderr)
"""


@dataclass(frozen=True)
class Exported:
    """A checkpoint, the cache that its export filled, and the bytes of its artifact."""

    checkpoint: Path
    cache: Path
    content: bytes

    def copied(self, folder: Path) -> Exported:
        return replace(self, cache=Path(shutil.copytree(self.cache, folder / "cache")))

    @property
    def shortcut(self) -> Path:
        (path,) = self.cache.glob(f"*{SHORTCUT_SUFFIX}")
        return path

    def change_shortcut(self, change: Callable[[list[Origins]], list[Origins]], key: str = "") -> None:
        """Change the shortcut and make its digest right again; store it under `key` if that is given."""
        found = msgspec.msgpack.decode(self.shortcut.read_bytes()[32:], type=list[Origins])
        made = self.cache.parent / "made"
        content = msgspec.msgpack.encode(change(found))
        Templates(self.cache, made).keep(key or self.shortcut.stem, content, SHORTCUT_SUFFIX)
        settle(made, self.cache)


def _arguments(checkpoint: Path, output: Path, cache: Path) -> list[str]:
    return [str(checkpoint), "--formats", "onnx", "--output", str(output), "--cache", str(cache)]


def _export(checkpoint: Path, output: Path, cache: Path) -> tuple[bool, bytes]:
    assert main(_arguments(checkpoint, output, cache)) == 0
    artifact = json.loads((output / "hfexport.json").read_text())["artifacts"][0]
    return artifact["details"]["from_template"], (output / artifact["path"]).read_bytes()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("shortcuts")
    checkpoint = make_checkpoint(folder / "checkpoint", "bert", "sequence-classification")
    from_template, content = _export(checkpoint, folder / "out", folder / "cache")
    assert not from_template
    return Exported(checkpoint, folder / "cache", content)


def test_a_run_from_a_template_imports_no_torch(exported: Exported, tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / "other", "bert", "sequence-classification", seed=7)
    # With this variable the exporting process is the one that is started here; its children stay new interpreters.
    env = {**os.environ, "HFEXPORT_FORK_SERVERS": str(tmp_path)}
    command = [sys.executable, "-c", PROGRAM, *_arguments(other, tmp_path / "out", exported.cache)]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert "imported: [] exit code: 0" in ended.stderr, ended.stderr
    manifest = json.loads((tmp_path / "out" / "hfexport.json").read_text())
    (artifact,) = manifest["artifacts"]
    assert artifact["details"]["from_template"] is True
    assert (manifest["verdict"], manifest["task"], manifest["dtype"]) == ("passed", "sequence-classification", "fp32")
    assert len(artifact["validation"]["probes"]) == 5
    assert artifact["validation"]["weights"]["proved_bytes"] > 0


def _opened(exported: Exported, tmp_path: Path, **changes: Any) -> tuple[Any, list[str]]:
    notes = Notes()
    inputs = replace(Inputs(), model="m", formats=("onnx",), cache=str(exported.cache), **changes)
    # Opening shortcuts needs no other field of a manifest than its stages.
    work = Run(inputs, notes, {}, tmp_path, {"stages": []})  # type: ignore[typeddict-item]
    return open_shortcuts(work, look_over(exported.checkpoint, "")), [text for _, text in notes.kept]


def _flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _exchange_for_another(path: Path) -> None:
    made = path.parent / "made"
    Templates(path.parent, made).keep("0" * 64, b"another", SHORTCUT_SUFFIX)
    (made / f"{'0' * 64}{SHORTCUT_SUFFIX}").replace(path)


@pytest.mark.parametrize("damage", [_flip_a_byte, _truncate, _exchange_for_another])
def test_a_damaged_shortcut_is_not_used(exported: Exported, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    copied = exported.copied(tmp_path)
    warm, notes = _opened(copied, tmp_path)
    assert warm is not None and notes == []
    damage(copied.shortcut)
    warm, notes = _opened(copied, tmp_path)
    assert warm is None
    assert "is not used: its digest does not match" in notes[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda found: [msgspec.structs.replace(found[0], graph="../model")],
        lambda found: [msgspec.structs.replace(found[0], weights=found[0].weights[1:])],
        lambda found: [msgspec.structs.replace(found[0], weights=found[0].weights[::-1])],
    ],
)
def test_a_shortcut_that_does_not_fit_is_not_used(exported: Exported, tmp_path: Path, change: Any) -> None:
    copied = exported.copied(tmp_path)
    copied.change_shortcut(change)
    warm, notes = _opened(copied, tmp_path)
    assert warm is None
    assert "is not used" in notes[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"opset": 18},
        {"task": "default"},
        {"validate": "off"},
        {"formats": ("onnx", "torchscript")},
        {"trust_remote_code": True},
        {"fixed": {"batch": 1}},
        {"target": ("transformersjs",)},
        {"variants": ("int8",)},
    ],
)
def test_other_inputs_have_no_shortcut(exported: Exported, tmp_path: Path, changes: dict[str, Any]) -> None:
    notes = Notes()
    inputs = replace(Inputs(), model="m", cache=str(exported.cache), **{"formats": ("onnx",), **changes})
    # Opening shortcuts needs no other field of a manifest than its stages.
    work = Run(inputs, notes, {}, tmp_path, {"stages": []})  # type: ignore[typeddict-item]
    assert open_shortcuts(work, look_over(exported.checkpoint, "")) is None


def _exchange_two_weights(found: list[Origins]) -> list[Origins]:
    weights = list(found[0].weights)
    names = [weight.tensor for weight in weights]
    one, other = (names.index(f"bert.encoder.layer.0.attention.self.{name}.weight") for name in ("query", "key"))
    weights[one], weights[other] = weights[other], weights[one]
    return [msgspec.structs.replace(found[0], weights=tuple(weights))]


def test_a_shortcut_to_the_wrong_weights_is_found_out_and_made_again(
    exported: Exported, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    copied = exported.copied(tmp_path)
    right = copied.shortcut.read_bytes()
    copied.change_shortcut(_exchange_two_weights)
    capfd.readouterr()
    from_template, content = _export(exported.checkpoint, tmp_path / "out", copied.cache)
    assert "the graph is captured again" in capfd.readouterr().err
    assert not from_template
    assert content == exported.content
    assert copied.shortcut.read_bytes() == right


def test_a_shortcut_to_another_graph_is_found_out(
    exported: Exported, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    copied = exported.copied(tmp_path)
    other = Path(shutil.copytree(exported.checkpoint, tmp_path / "other"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-3}))
    from hfexport.checkpoint import read_checkpoint
    from hfexport.run.warm import _key

    inputs = replace(Inputs(), model="m", formats=("onnx",))
    copied.change_shortcut(lambda found: found, _key(read_checkpoint(look_over(other, "")), inputs, "onnx"))
    capfd.readouterr()
    from_template, content = _export(other, tmp_path / "out", copied.cache)
    assert "the checkpoint has another graph" in capfd.readouterr().err
    assert not from_template
    assert content != exported.content


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_in_another_dtype_are_converted_as_without_a_shortcut(tmp_path: Path, dtype: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    def saved(seed: int) -> Path:
        made = make_checkpoint(tmp_path / f"seed-{seed}", "llama", "causal-lm-with-past", seed=seed)
        model = AutoModelForCausalLM.from_pretrained(made, dtype=getattr(torch, dtype))
        model.save_pretrained(tmp_path / f"{dtype}-{seed}", max_shard_size="40KB")
        return tmp_path / f"{dtype}-{seed}"

    first, second = saved(1), saved(2)
    _export(first, tmp_path / "first", tmp_path / "cache")
    warm, warm_content = _export(second, tmp_path / "warm", tmp_path / "cache")
    cold, cold_content = _export(second, tmp_path / "cold", tmp_path / "empty")
    assert (warm, cold) == (True, False)
    assert warm_content == cold_content
    stages = json.loads((tmp_path / "warm" / "hfexport.json").read_text())["stages"]
    assert "Unused tensors" not in [stage["name"] for stage in stages]
