"""Templates of TorchScript archives: the bytes of a fresh trace without torch, and wrong templates are found out."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
import transformers

from command import manifest_of, run
from hfexport.backends.base import Artifact, ExportJob
from hfexport.backends.templates import SHORTCUT_SUFFIX, SUFFIX, Templates, settle
from hfexport.backends.torchscript.backend import TorchScriptBackend
from hfexport.backends.torchscript.template import Record, Script, decode, encode, take_apart
from hfexport.backends.torchscript.trace import reads_numbers
from hfexport.export_config.builtin import config_class_for
from hfexport.export_config.tasks import TASKS
from hfexport.modeling.load import load_model
from hfexport.modeling.wrappers import flat_model
from hfexport.runtime import DESCRIPTION_FILE
from tiny import make_checkpoint

FORMATS = "onnx,torchscript"

PROGRAM = """
import sys
from hfexport.cli.main import main
code = main(sys.argv[1:])
heavy = [name for name in ("torch", "transformers", "onnxscript", "onnxruntime") if name in sys.modules]
print("imported:", heavy, "exit code:", code, file=sys.stderr)
"""


def _job(checkpoint: Path, folder: Path, model_type: str, task: str, **more: Any) -> ExportJob:
    config = config_class_for(model_type)(transformers.AutoConfig.from_pretrained(checkpoint), TASKS[task])
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"producer": "hfexport", "version": "0", "source": checkpoint.name, "task": task}
    return ExportJob(checkpoint, config, "fp32", folder, metadata, **more)


def _export(job: ExportJob, cache: Path) -> tuple[Artifact, list[str]]:
    """Export with the templates of a cache, and settle new ones; return the artifact and the notes."""
    notes: list[str] = []
    templates = Templates(cache, job.folder / "made")
    artifact = TorchScriptBackend(templates, notes.append).export(job)
    settle(templates.made, cache)
    return artifact, notes


def _new_process() -> dict[str, str]:
    """Return an environment in which an export starts processes of its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HFEXPORT_")}


def _template(cache: Path) -> Path:
    """Return the only template of an archive in a cache."""
    (path,) = (path for path in cache.glob(f"*{SUFFIX}") if b"data.pkl" in path.read_bytes())
    return path


def _replace(path: Path, script: Script) -> None:
    """Store another template in the place of one, with the right digest."""
    made = path.parent / "made"
    Templates(path.parent, made).keep(path.name.removesuffix(SUFFIX), encode(script))
    settle(made, path.parent)


@pytest.mark.parametrize(
    ("model_type", "task", "more"),
    [
        ("bert", "masked-lm", {}),
        ("bert", "masked-lm", {"fixed_sizes": {"batch": 2, "sequence": 12}}),
        ("gpt2", "causal-lm-with-past", {}),
        ("vit", "image-classification", {}),
    ],
)
def test_a_template_gives_the_bytes_of_a_fresh_trace(
    tmp_path: Path, model_type: str, task: str, more: dict[str, Any]
) -> None:
    first, second = (make_checkpoint(tmp_path / f"seed-{seed}", model_type, task, seed=seed) for seed in (1, 2))
    cache = tmp_path / "cache"
    traced, _ = _export(_job(first, tmp_path / "first", model_type, task, **more), cache)
    warm, notes = _export(_job(second, tmp_path / "warm", model_type, task, **more), cache)
    cold = TorchScriptBackend().export(_job(second, tmp_path / "cold", model_type, task, **more))
    assert [one.details["from_template"] for one in (traced, warm, cold)] == [False, True, False]
    assert notes == []
    assert warm.path.read_bytes() == cold.path.read_bytes() != traced.path.read_bytes()
    assert msgspec.structs.asdict(decode(_template(cache).read_bytes()[32:]))["fixed_sizes"] == more.get(
        "fixed_sizes", {}
    )
    assert (warm.fixed_sizes, warm.details) == (cold.fixed_sizes, {**cold.details, "from_template": True})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a checkpoint, and a cache with the templates of both formats."""
    folder = tmp_path_factory.mktemp("templates")
    checkpoint = make_checkpoint(folder / "checkpoint", "bert", "sequence-classification")
    code, said = run(folder / "out", checkpoint, "--formats", FORMATS, "--cache", folder / "cache")
    assert code == 0, said
    assert not any(artifact["details"]["from_template"] for artifact in manifest_of(folder / "out")["artifacts"])
    return checkpoint, folder / "cache"


def test_both_formats_from_templates_import_no_torch(made: tuple[Path, Path], tmp_path: Path) -> None:
    assert len(list(made[1].glob(f"*{SHORTCUT_SUFFIX}"))) == 2
    other = make_checkpoint(tmp_path / "other", "bert", "sequence-classification", seed=7)
    output = tmp_path / "out"
    # With this variable the exporting process is the one that is started here; its children stay new interpreters.
    env = {**os.environ, "HFEXPORT_FORK_SERVERS": str(tmp_path)}
    arguments = [str(other), "--formats", FORMATS, "--output", str(output), "--cache", str(made[1])]
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], env=env, capture_output=True, text=True, check=False
    )
    assert "imported: [] exit code: 0" in ended.stderr, ended.stderr
    manifest = manifest_of(output)
    assert manifest["verdict"] == "passed"
    for artifact in manifest["artifacts"]:
        assert artifact["details"]["from_template"] is True
        assert len(artifact["validation"]["probes"]) == 5
        assert artifact["validation"]["weights"]["proved_bytes"] > 0
    path = output / "torchscript" / "model.pt"
    with zipfile.ZipFile(path) as archive:
        metadata = json.loads(archive.read(f"model/extra/{DESCRIPTION_FILE}"))["metadata"]
    job = _job(other, tmp_path / "cold", "bert", "sequence-classification")
    cold = TorchScriptBackend().export(replace(job, metadata=metadata))
    assert cold.path.read_bytes() == path.read_bytes()


def _without_activation(script: Script) -> Script:
    records = tuple(
        msgspec.structs.replace(one, content=one.content.replace(b"torch.tanh(", b"torch.sin("))
        for one in script.records
    )
    assert records != script.records
    return msgspec.structs.replace(script, records=records)


def test_a_template_with_other_code_is_found_out_and_made_again(made: tuple[Path, Path], tmp_path: Path) -> None:
    cache = Path(shutil.copytree(made[1], tmp_path / "cache"))
    path = _template(cache)
    right = path.read_bytes()
    _replace(path, _without_activation(decode(right[32:])))
    code, said = run(tmp_path / "out", made[0], "--formats", "torchscript", "--cache", cache)
    assert code == 0, said
    assert "The cached template is not used" in said and "again" in said
    assert [one["details"]["from_template"] for one in manifest_of(tmp_path / "out")["artifacts"]] == [False]
    assert path.read_bytes() == right


@pytest.fixture(scope="module")
def script(made: tuple[Path, Path]) -> Script:
    return decode(_template(made[1]).read_bytes()[32:])


def _flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _exchange_for_another(path: Path) -> None:
    made = path.parent / "made"
    Templates(path.parent, made).keep("0" * 64, b"another template")
    (made / f"{'0' * 64}{SUFFIX}").replace(path)


def _describe_other_inputs(path: Path) -> None:
    script = decode(path.read_bytes()[32:])
    described = {**script.description, "inputs": script.description["inputs"][::-1]}
    _replace(path, msgspec.structs.replace(script, description=described))


@pytest.mark.parametrize("damage", [_flip_a_byte, _truncate, _exchange_for_another, _describe_other_inputs])
def test_a_damaged_template_is_not_used_and_made_again(
    made: tuple[Path, Path], tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    cache = Path(shutil.copytree(made[1], tmp_path / "cache"))
    path = _template(cache)
    right = path.read_bytes()
    damage(path)
    artifact, notes = _export(_job(made[0], tmp_path / "out", "bert", "sequence-classification"), cache)
    assert artifact.details["from_template"] is False
    assert "is not used" in notes[0] and "traced again" in notes[0]
    assert path.read_bytes() == right


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda _: {"root": "../model"}, "root folder"),
        (lambda found: {"records": (*found.records, Record("extra/more", b""))}, "records"),
        (lambda found: {"records": (*found.records, found.records[0])}, "records"),
        (lambda found: {"records": (*found.records, Record("data/99", b"1234"))}, "records"),
        (lambda found: {"weights": found.weights[1:]}, "other tensors"),
        (lambda found: {"weights": found.weights[::-1]}, "other tensors"),
        (lambda found: {"records": found.records[1:]}, "cannot be read"),
        (
            lambda found: {"records": (*found.records, Record("code/__torch__/a.py", b"torch.save(x, 'file')"))},
            "operators",
        ),
        (
            lambda found: {"records": (*found.records, Record("code/__torch__/a.py", b"ops.other.do(x)"))},
            "operators",
        ),
    ],
)
def test_contents_that_are_no_template_are_refused(script: Script, change: Any, said: str) -> None:
    assert decode(encode(script)) == script
    with pytest.raises(ValueError, match=said):
        decode(encode(msgspec.structs.replace(script, **change(script))))


def test_a_template_whose_pickle_names_other_classes_is_refused(script: Script) -> None:
    pickled = io.BytesIO()
    pickle.dump(os.getcwd, pickled, protocol=2)
    records = tuple(
        msgspec.structs.replace(one, content=pickled.getvalue()) if one.name == "data.pkl" else one
        for one in script.records
    )
    with pytest.raises(ValueError, match="is no part of a module"):
        decode(encode(msgspec.structs.replace(script, records=records)))


def test_an_archive_with_another_layout_gives_no_template(made: tuple[Path, Path], tmp_path: Path) -> None:
    path = TorchScriptBackend().export(_job(made[0], tmp_path / "out", "bert", "sequence-classification")).path
    assert take_apart(path)[0] == "model"
    again = tmp_path / "model.pt"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(again, "w") as target:
        for record in source.infolist():
            target.writestr(record.filename, source.read(record))
    with pytest.raises(ValueError, match="another header"):
        take_apart(again)


def test_a_model_that_reads_numbers_from_its_weights_has_no_template(made: tuple[Path, Path], tmp_path: Path) -> None:
    job = _job(made[0], tmp_path, "bert", "sequence-classification")
    flat = flat_model(load_model(made[0], job.config, "fp32"), job.config)
    assert not reads_numbers(flat, job)

    def scaled(module: torch.nn.Module, given: object, found: torch.Tensor) -> torch.Tensor:
        return found * float(module.bias[0])

    flat.model.get_submodule("classifier").register_forward_hook(scaled)
    assert reads_numbers(flat, job)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("model_type", "task"),
    [("t5", "seq2seq-lm-with-past"), ("whisper", "speech2seq-lm-with-past"), ("clip", "default")],
)
def test_all_files_of_a_model_come_from_templates(tmp_path: Path, model_type: str, task: str) -> None:
    first, second = (make_checkpoint(tmp_path / f"seed-{seed}", model_type, task, seed=seed) for seed in (1, 2))
    found = {}
    for name, checkpoint, cache in (("first", first, "cache"), ("warm", second, "cache"), ("cold", second, "empty")):
        # In new processes: names in a trace depend on whether the process has traced a model with the same classes.
        arguments = ["--task", task, "--formats", FORMATS, "--cache", tmp_path / cache, "--output", tmp_path / name]
        subprocess.run([sys.executable, "-m", "hfexport", checkpoint, *arguments], env=_new_process(), check=True)
        found[name] = manifest_of(tmp_path / name)
    for warm, cold in zip(found["warm"]["artifacts"], found["cold"]["artifacts"], strict=True):
        assert (warm["details"]["from_template"], cold["details"]["from_template"]) == (True, False)
        assert warm["files"] == cold["files"]
    assert "Unused tensors" not in [stage["name"] for stage in found["warm"]["stages"]]
