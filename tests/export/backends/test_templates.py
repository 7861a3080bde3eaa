"""Graph templates: the same bytes as a fresh capture, a key for all that a graph depends on, and a cache that heals."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import onnx
import pytest

from hfexport.backends.base import ExportJob
from hfexport.backends.onnx.template import decode, encode
from hfexport.backends.templates import SUFFIX, Templates, settle, template_key
from hfexport.cli.main import main
from hfexport.export_config.builtin import known_architectures
from hfexport.export_config.tasks import TASKS
from tiny import CONFIGS, make_checkpoint


def _export(checkpoint: Path, output: Path, cache: Path, *more: str) -> tuple[dict[str, Any], bytes]:
    """Export to ONNX; return the details of the only artifact, and its bytes."""
    arguments = ["--formats", "onnx", "--output", str(output), "--cache", str(cache), *more]
    assert main([str(checkpoint), *arguments]) == 0
    manifest = json.loads((output / "hfexport.json").read_text())
    return manifest["artifacts"][-1]["details"], (output / manifest["artifacts"][-1]["path"]).read_bytes()


@pytest.mark.parametrize(
    ("model_type", "task"),
    [
        ("bert", "sequence-classification"),
        ("gpt2", "causal-lm-with-past"),
        pytest.param("t5", "seq2seq-lm-with-past", marks=pytest.mark.thorough),
    ],
)
def test_a_template_gives_the_bytes_of_a_fresh_capture(tmp_path: Path, model_type: str, task: str) -> None:
    first, second = (make_checkpoint(tmp_path / f"seed-{seed}", model_type, task, seed=seed) for seed in (1, 2))
    cache = tmp_path / "cache"
    off = ("--validate", "off")
    assert _export(first, tmp_path / "first", cache, *off)[0]["from_template"] is False
    warm, warm_bytes = _export(second, tmp_path / "warm", cache, *off)
    cold, cold_bytes = _export(second, tmp_path / "cold", tmp_path / "empty", *off)
    assert (warm["from_template"], cold["from_template"]) == (True, False)
    assert warm_bytes == cold_bytes


def _job(tmp_path: Path, model_type: str, task: str, **changes: Any) -> ExportJob:
    from transformers import AutoConfig

    config = AutoConfig.for_model(model_type, **{**CONFIGS[model_type], **changes})
    described = known_architectures()[model_type](config, TASKS[task])
    return ExportJob(tmp_path, described, "fp32", tmp_path, {})


@pytest.mark.parametrize(("model_type", "task"), [("bert", "masked-lm"), ("llama", "causal-lm-with-past")])
def test_every_field_of_the_config_changes_the_key(tmp_path: Path, model_type: str, task: str) -> None:
    job = _job(tmp_path, model_type, task)
    key = template_key(job, [], format="onnx")
    for name, value in job.config.config.to_dict().items():
        described = job.config.config.to_dict()
        if name in ("model_type", "_name_or_path", "transformers_version"):
            continue  # the first is fixed by the class, the others say where the config came from
        changed = (not value) if isinstance(value, bool) else f"{value} changed"
        stand_in = type(job.config.config)(**CONFIGS[model_type])
        object.__setattr__(stand_in, "to_dict", lambda found={**described, name: changed}: found)
        job.config.config = stand_in
        assert template_key(job, [], format="onnx") != key, name


def test_the_key_depends_on_more_than_the_config(tmp_path: Path) -> None:
    job = _job(tmp_path, "bert", "masked-lm")
    keys = {
        template_key(job, [], format="onnx"),
        template_key(job, [], format="torchscript"),
        template_key(job, [["a", "b"]], format="onnx"),
        template_key(_job(tmp_path, "bert", "default"), [], format="onnx"),
        template_key(job, [], format="onnx", opset=17),
        *(
            template_key(replace(job, **change), [], format="onnx")
            for change in ({"dtype": "fp16"}, {"fixed_sizes": {"batch": 1}})
        ),
    }
    assert len(keys) == 7


def _swap_an_operator(path: Path) -> None:
    """Make the template's graph wrong, and its digest right again."""
    key, stored = path.name.removesuffix(SUFFIX), path.read_bytes()
    skeleton = decode(stored[32:])
    model = onnx.ModelProto.FromString(skeleton.graph)
    node = next(node for node in model.graph.node if node.op_type in ("Tanh", "Erf"))
    node.op_type = "Sin"
    wrong = encode(msgspec.structs.replace(skeleton, graph=model.SerializeToString()))
    made = path.parent / "made"
    Templates(path.parent, made).keep(key, wrong)
    settle(made, path.parent)


def _flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _exchange_for_another(path: Path) -> None:
    made = path.parent / "made"
    Templates(path.parent, made).keep("0" * 64, b"another template")
    (made / f"{'0' * 64}{SUFFIX}").replace(path)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, bytes]:
    """A checkpoint, a cache with its template, and the bytes of its artifact."""
    folder = tmp_path_factory.mktemp("kept")
    checkpoint, cache = make_checkpoint(folder / "made", "bert", "sequence-classification"), folder / "cache"
    return checkpoint, cache, _export(checkpoint, folder / "out", cache)[1]


@pytest.mark.parametrize("damage", [_swap_an_operator, _flip_a_byte, _truncate, _exchange_for_another])
def test_a_wrong_template_is_found_out_and_made_again(
    kept: tuple[Path, Path, bytes], tmp_path: Path, damage: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoint, whole_cache, right = kept
    cache = shutil.copytree(whole_cache, tmp_path / "cache")
    (path,) = cache.glob(f"*{SUFFIX}")
    whole = path.read_bytes()
    damage(path)
    capfd.readouterr()
    more = (
        () if damage is _swap_an_operator else ("--validate", "off")
    )  # validation finds the first, digests the others
    details, again = _export(checkpoint, tmp_path / "out", cache, *more)
    assert again == right
    assert details["from_template"] is False
    assert "again" in capfd.readouterr().err
    assert path.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    checkpoint = make_checkpoint(tmp_path / "made", "bert", "sequence-classification")
    (tmp_path / "file").write_text("no folder")
    _export(checkpoint, tmp_path / "out", tmp_path / "file", "--validate", "off")
    assert "templates were not stored" in capfd.readouterr().err


def test_the_least_recently_used_template_is_removed(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for second, name in enumerate("abc"):
        Templates(cache, tmp_path / name).keep(name, bytes(1000))
        settle(tmp_path / name, cache, 2500)
        if (cache / f"{name}{SUFFIX}").is_file():
            os.utime(cache / f"{name}{SUFFIX}", (second, second))
        Templates(cache, tmp_path / "used").mark_used("a")
        settle(tmp_path / "used", cache, 2500)
    assert sorted(path.stem for path in cache.iterdir()) == ["a", "c"]


_WRITE_AND_READ = """
import sys
from pathlib import Path
from hfexport.backends.templates import Templates, settle
cache, made = map(Path, sys.argv[1:])
for turn in range(50):
    templates = Templates(cache, made)
    templates.keep("key", bytes([turn]) * 100_000)
    settle(made, cache)
    content = templates.find("key")  # raises an error for half a file
    assert content is not None and len(content) == 100_000 and len(set(content)) == 1
"""


def test_concurrent_runs_see_whole_templates(tmp_path: Path) -> None:
    commands = [[sys.executable, "-c", _WRITE_AND_READ, tmp_path / "cache", tmp_path / f"made-{n}"] for n in range(4)]
    processes = [
        subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}) for command in commands
    ]
    assert [process.wait() for process in processes] == [0] * 4
