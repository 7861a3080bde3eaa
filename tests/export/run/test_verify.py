"""`hfexport verify` says yes to what was made and proved, and no to anything that is not quite that."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from hfexport.backends.onnx.targets.left_padding import write_left_padded
from hfexport.cli import main as cli
from tiny import make_checkpoint


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint, and what an export made of it."""
    folder = tmp_path_factory.mktemp("verify")
    checkpoint = make_checkpoint(folder / "checkpoint", "bert", "sequence-classification", tokenizer=True)
    code = cli.main(["--model", str(checkpoint), "--formats", "onnx", "--output", str(folder / "out")])
    assert code == 0
    return checkpoint, folder / "out"


@pytest.fixture
def export(made: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(made[1], tmp_path / "out"))


@pytest.fixture
def verify(made: tuple[Path, Path], capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def run(folder: Path, *options: str, model: Path | None = made[0]) -> tuple[int, str]:
        source = [] if model is None else ["--model", str(model)]
        capfd.readouterr()
        code = cli.main(["verify", str(folder), *source, *options])
        return code, capfd.readouterr().err

    return run


@contextmanager
def edited(folder: Path) -> Iterator[dict]:
    path = folder / "hfexport.json"
    manifest = json.loads(path.read_text())
    yield manifest
    path.write_text(json.dumps(manifest))


def rehash(folder: Path) -> None:
    """Make the manifest fit the files again, as a forger would."""
    with edited(folder) as manifest:
        for entry in [*manifest["files"], *(file for one in manifest["artifacts"] for file in one["files"])]:
            content = (folder / entry["path"]).read_bytes()
            entry |= {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_what_was_made(export: Path, verify: Callable[..., tuple[int, str]]) -> None:
    code, said = verify(export)
    assert code == 0, said
    assert "verified" in said


@pytest.mark.parametrize("path", ["onnx/model.onnx", "tokenizer.json"])
def test_a_changed_file(export: Path, verify: Callable[..., tuple[int, str]], path: str) -> None:
    content = bytearray((export / path).read_bytes())
    content[len(content) // 2] ^= 1
    (export / path).write_bytes(content)
    code, said = verify(export)
    assert code == 6
    assert path in said
    (export / path).unlink()
    code, said = verify(export)
    assert code == 6
    assert "is missing" in said


def test_a_forged_artifact_whose_hash_fits(export: Path, verify: Callable[..., tuple[int, str]]) -> None:
    path = export / "onnx" / "model.onnx"
    model = onnx.load(path)
    weight = next(tensor for tensor in model.graph.initializer if "classifier" in tensor.name and len(tensor.dims) == 2)
    array = onnx.numpy_helper.to_array(weight) * 1.01
    weight.CopyFrom(onnx.numpy_helper.from_array(array.astype("float32"), weight.name))
    onnx.save(model, path)
    rehash(export)
    with edited(export) as manifest:
        manifest["inputs"]["atol"] = 1e9
        manifest["artifacts"][0]["validation"]["tolerance"] = {"atol": 1e9, "rtol": 1e9}
    code, said = verify(export)
    assert code == 6
    assert "logits" in said
    assert verify(export, "--atol", "100")[0] == 6, "no tolerance covers other weights"


def test_another_checkpoint(export: Path, verify: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / "other", "bert", "sequence-classification", seed=1)
    code, said = verify(export, model=other)
    assert code == 6
    assert "differs from the exported one" in said


def test_a_source_that_is_not_here(export: Path, verify: Callable[..., tuple[int, str]]) -> None:
    code, said = verify(export, model=None)
    assert code == 3
    (error,) = [line for line in said.splitlines() if line.startswith("error:")]
    assert "was made from a folder" in error
    assert "its files have the right hashes" in error
    assert "Give the checkpoint that it was made from as --model." in said
    assert "Traceback" not in said


@pytest.mark.parametrize("path", ["/etc/passwd", "../out/onnx/model.onnx", "onnx/../../x"])
def test_paths_that_lead_out(export: Path, verify: Callable[..., tuple[int, str]], path: str) -> None:
    with edited(export) as manifest:
        manifest["files"].append({"path": path, "size_bytes": 1, "sha256": "0" * 64})
    code, said = verify(export)
    assert code == 6
    assert "outside" in said


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"schema_version": 1}', '{"schema_version": 1.0}'])
def test_what_is_no_manifest(export: Path, verify: Callable[..., tuple[int, str]], content: str) -> None:
    (export / "hfexport.json").write_text(content)
    code, said = verify(export)
    assert code == 6
    assert "no manifest" in said


def test_a_manifest_that_claims_nothing(export: Path, verify: Callable[..., tuple[int, str]]) -> None:
    with edited(export) as manifest:
        manifest["verdict"] = "not_validated"
    assert verify(export)[0] == 6


def test_a_folder_without_one(tmp_path: Path, verify: Callable[..., tuple[int, str]]) -> None:
    code, said = verify(tmp_path)
    assert code == 3
    assert "hfexport.json" in said


def test_nothing_to_verify(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify"]) == 2
    assert cli.main(["verify", "--model", "x"]) == 2
    assert "verify needs what to verify" in capfd.readouterr().err


def test_a_task_that_was_inferred(tmp_path: Path, verify: Callable[..., tuple[int, str]]) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "wav2vec2", "auto")
    words = ["--model", str(checkpoint), "--formats", "torchscript", "--output", str(tmp_path / "out")]
    assert cli.main(words) == 0
    assert verify(tmp_path / "out", model=checkpoint)[0] == 0
    with edited(tmp_path / "out") as manifest:
        manifest["task"] = "no such task"
    code, said = verify(tmp_path / "out", model=checkpoint)
    assert code == 6
    assert "no such task" in said


def test_tensors_that_the_manifest_does_not_say_are_left_out(
    tmp_path: Path, verify: Callable[..., tuple[int, str]]
) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "bert", "sequence-classification")
    path, out = checkpoint / "model.safetensors", tmp_path / "out"
    save_file({**load_file(path), "age_head.weight": torch.ones(2, 3)}, path, metadata={"format": "pt"})
    words = ["--model", str(checkpoint), "--formats", "torchscript", "--output", str(out)]
    assert cli.main([*words, "--allow-unused", "age_head.*"]) == 0
    code, said = verify(out, model=checkpoint)
    assert code == 0, said
    assert "not in the model: age_head.weight" in said
    for forge in (lambda source: source.update(unused_tensors=[]), lambda source: source.pop("unused_tensors")):
        with edited(out) as manifest:
            forge(manifest["source"])
        code, said = verify(out, model=checkpoint)
        assert code == 6
        assert "does not say that tensors of the checkpoint are not in the model: age_head.weight" in said


GREEDY = """
def forward(self, input_ids, attention_mask, token_type_ids):
    # type: (Tensor, Tensor, Tensor) -> Tuple[Tensor]
    waste = input_ids
    {waste}
    return (self.model(input_ids, attention_mask, token_type_ids)[0],)
"""


@pytest.fixture(scope="module")
def traced(made: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TorchScript export of the same checkpoint."""
    folder = tmp_path_factory.mktemp("traced") / "out"
    assert cli.main(["--model", str(made[0]), "--formats", "torchscript", "--output", str(folder)]) == 0
    return folder


@pytest.mark.parametrize(
    ("waste", "options", "said"),
    [
        ("waste = waste + 1", (), None),
        (
            f"waste = torch.empty([{10 * 2**30}], dtype=torch.uint8)\n    assert int(waste[0]) < 300",
            (),
            "allocate memory",
        ),
        ("while bool(waste.sum() > -1):\n        waste = waste + 1", ("--validation-timeout", "3"), "not checked"),
    ],
    ids=["harmless", "memory", "time"],
)
def test_an_artifact_that_takes_more_than_it_may(
    traced: Path,
    tmp_path: Path,
    verify: Callable[..., tuple[int, str]],
    waste: str,
    options: tuple[str, ...],
    said: str | None,
) -> None:
    """Its outputs and its weights are right, so that only the limits of the runner stop it."""
    out = Path(shutil.copytree(traced, tmp_path / "out"))
    (path,) = (out / "torchscript").glob("*.pt")
    described = {"hfexport.json": ""}
    greedy = torch.nn.Module()
    greedy.model = torch.jit.load(path, _extra_files=described)
    scripted = torch.jit.script(greedy)
    scripted.define(GREEDY.format(waste=waste))
    torch.jit.save(scripted, path, _extra_files=described)
    rehash(out)
    code, told = verify(out, *options)
    assert code == (0 if said is None else 6), told
    assert said is None or said in told


def test_a_forged_graph_of_a_target(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "llama", "causal-lm")
    folder = tmp_path / "out"
    asked = ["--model", str(checkpoint), "--formats", "onnx", "--target", "genai"]
    assert cli.main([*asked, "--variants", "q4", "--min-similarity", "0", "--output", str(folder)]) == 0
    capfd.readouterr()
    assert cli.main(["verify", str(folder), "--model", str(checkpoint), "--min-similarity", "0"]) == 0
    said = capfd.readouterr().err
    assert "model_genai.onnx: answers as model.onnx does" in said
    assert "model_q4_genai.onnx: answers as model_q4.onnx does" in said
    pad = json.loads((folder / "genai_config.json").read_text())["model"]["pad_token_id"]
    path = folder / "onnx" / "model_genai.onnx"
    write_left_padded(folder / "onnx" / "model.onnx", path, "past_key_values.0.key", pad + 1)
    rehash(folder)
    assert cli.main(["verify", str(folder), "--model", str(checkpoint), "--min-similarity", "0"]) == 6
    assert "model_genai.onnx: for prompts with padding at their start it differs" in capfd.readouterr().err
    path.rename(path.with_name("model_more_genai.onnx"))
    with edited(folder) as manifest:
        for entry in manifest["files"]:
            entry["path"] = entry["path"].replace("model_genai", "model_more_genai")
    assert cli.main(["verify", str(folder), "--model", str(checkpoint), "--min-similarity", "0"]) == 6
    assert "model_more.onnx: is no graph of this export" in capfd.readouterr().err
