"""Whatever file the weights lie in, the model is the same; a head that is missing is told from one that is tied."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch._subclasses.fake_tensor import FakeTensorMode

from command import run
from hfexport._internal import workers
from hfexport._internal.messages import plain
from hfexport.checkpoint import look_over
from hfexport.cli.main import main
from hfexport.errors import UnsupportedError
from hfexport.export_config.builtin import known_architectures
from hfexport.export_config.tasks import TASKS
from hfexport.modeling.conversion import conversion_job, worker
from hfexport.modeling.load import empty_model, load_model
from tiny import make_checkpoint


def _as_torch_files(folder: Path, *, shards: int = 1, zipped: bool = True) -> Path:
    """Put the weights of a checkpoint into files of `torch.save`, as transformers did before safetensors."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    parts = [dict(list(weights.items())[number::shards]) for number in range(shards)]
    names = ["pytorch_model.bin"]
    if shards > 1:
        names = [f"pytorch_model-{number + 1:05}-of-{shards:05}.bin" for number in range(shards)]
        places = {tensor: name for name, part in zip(names, parts, strict=True) for tensor in part}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    for name, part in zip(names, parts, strict=True):
        torch.save(part, folder / name, _use_new_zipfile_serialization=zipped)
    return folder


def _converted(folder: Path, target: Path) -> Path:
    """In this process; the pipeline does the same in a child."""
    worker.run(plain(conversion_job(look_over(folder), target)))
    return target


def _load(folder: Path, task: str, dtype: str = "fp32") -> torch.nn.Module:
    config = transformers.AutoConfig.from_pretrained(folder)
    return load_model(folder, known_architectures()[config.model_type](config, TASKS[task]), dtype)


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize(("shards", "zipped"), [(1, True), (1, False), (3, True)], ids=["zip", "legacy", "sharded"])
def test_the_weights_of_torch_files_arrive_bit_for_bit(shards: int, zipped: bool, dtype: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", "gpt2", "causal-lm", dtype=dtype)
    wanted = load_file(folder / "model.safetensors")
    converted = _converted(_as_torch_files(folder, shards=shards, zipped=zipped), tmp_path / "converted")
    given = load_file(converted / "model.safetensors")
    assert given.keys() == wanted.keys()
    assert all(
        given[name].dtype == tensor.dtype and torch.equal(given[name], tensor) for name, tensor in wanted.items()
    )


def test_a_tied_head_is_not_missing(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", "gpt2", "causal-lm")
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    model = _load(_converted(_as_torch_files(folder), tmp_path / "converted"), "causal-lm")
    assert model.lm_head.weight.data_ptr() == model.transformer.wte.weight.data_ptr()


def test_an_untied_head_that_is_not_there_is_missing(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", "gpt2", "causal-lm")
    config = json.loads((folder / "config.json").read_bytes()) | {"tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedError, match=r"needs weights that the checkpoint does not have: lm_head\.weight"):
        _load(folder, "causal-lm")


def test_a_base_model_has_no_head(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", "bert", "default")
    with pytest.raises(UnsupportedError, match=r"cls\.predictions"):
        _load(folder, "masked-lm")


def test_half_precision_is_widened_exactly(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", "bert", "default", dtype="bf16")
    stored = load_file(folder / "model.safetensors")
    model = _load(folder, "default")
    name = "encoder.layer.0.output.dense.weight"
    assert torch.equal(dict(model.named_parameters())[name], stored[name].float())


def test_from_the_command_line(tmp_path: Path) -> None:
    folder = _as_torch_files(make_checkpoint(tmp_path / "checkpoint", "bert", "default"), shards=2)
    code, said = run(tmp_path / "output", "--model", folder, "--formats", "torchscript")
    assert code == 0, said
    source = json.loads((tmp_path / "output" / "hfexport.json").read_bytes())["source"]
    assert source["weight_format"] == "pytorch"
    assert {entry["path"] for entry in source["files"]} == {path.name for path in folder.iterdir()}


def test_a_conversion_that_does_not_end_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _as_torch_files(make_checkpoint(tmp_path / "checkpoint", "bert", "default"))
    started: list[workers.Worker] = []
    start = workers.start

    def noted(*arguments: Any, **options: Any) -> workers.Worker:
        started.append(start(*arguments, **options))
        if "conversion" in started[-1].name:
            os.kill(started[-1].pid, signal.SIGSTOP)  # it hangs
        return started[-1]

    monkeypatch.setattr(workers, "start", noted)
    monkeypatch.setattr(workers, "timeout_for", lambda _: 0.5)
    output = tmp_path / "out"
    assert main([str(folder), "--formats", "onnx", "--output", str(output)]) == 3
    said = capsys.readouterr().err
    assert "conversion" in said and "not finished after 0.5 s; stopped" in said and "Use a machine" in said
    assert "Traceback" not in said
    assert [path.name for path in output.iterdir()] == ["hfexport.json"]
    assert json.loads((output / "hfexport.json").read_text())["verdict"] == "error"
    assert any("conversion" in worker.name for worker in started)
    assert not any(worker.running for worker in started)


def test_a_pickle_that_would_run_ends_in_exit_code_3(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", "bert", "default")
    (folder / "model.safetensors").unlink()
    canary = tmp_path / "canary"
    # Protocol 0: the opcodes of `posix.system("touch canary")`, as a file of torch's older layout starts with a pickle.
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02cposix\nsystem\n(S'touch " + str(canary).encode() + b"'\ntR.")
    code, said = run(tmp_path / "output", "--model", folder)
    assert code == 3, said
    assert "pytorch_model.bin" in said
    assert "Traceback" not in said
    assert not canary.exists()


def _wrapped(folder: Path, prefix: str, *, shards: int = 1) -> Path:
    """Rename the weights of a checkpoint as a wrapper would, in one file of safetensors or in several."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    parts = [dict(list(weights.items())[number::shards]) for number in range(shards)]
    places: dict[str, str] = {}
    for number, part in enumerate(parts):
        name = "model.safetensors" if shards == 1 else f"model-{number + 1:05}-of-{shards:05}.safetensors"
        save_file({prefix + key: tensor for key, tensor in part.items()}, folder / name, metadata={"format": "pt"})
        places |= {prefix + key: name for key in part}
    if shards > 1:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder


@pytest.mark.parametrize("kind", ["safetensors", "shards", "torch file"])
def test_names_that_a_wrapper_added_to(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", "bert", "sequence-classification")
    if kind == "torch file":
        weights = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        state = {f"model._orig_mod.{name}": tensor for name, tensor in weights.items()}
        torch.save({"state_dict": state, "epoch": 1}, folder / "pytorch_model.bin")
        prefixes = ["_orig_mod.", "model."]
    else:
        _wrapped(folder, "_orig_mod.module.", shards=2 if kind == "shards" else 1)
        prefixes = ["module.", "_orig_mod."]
    output = tmp_path / "output"
    assert main(["--model", str(folder), "--output", str(output), "--formats", "torchscript"]) == 0
    assert f"where a wrapper had added it: {', '.join(prefixes)}" in capsys.readouterr().err
    manifest = json.loads((output / "hfexport.json").read_bytes())
    assert manifest["source"]["conversion"]["removed_prefixes"] == prefixes


@pytest.mark.parametrize("sharded", [False, True], ids=["one file", "shards"])
def test_a_variant_of_the_weights(sharded: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", "bert", "default")
    model = transformers.AutoModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, variant="fp16", max_shard_size="20KB" if sharded else "1GB")
    assert len(list(folder.glob("model.fp16*.safetensors"))) == (
        1 if not sharded else len(list(folder.glob("*.safetensors")))
    )
    options = ["--model", str(folder), "--output", str(tmp_path / "output"), "--formats", "torchscript"]
    assert main(options) == 3
    assert "weights-variant: fp16" in capsys.readouterr().err
    assert main([*options, "--weights-variant", "fp16"]) == 0


def _headless(folder: Path, model_type: str, architecture: str) -> Path:
    """A bare model whose config.json names a class with a head."""
    make_checkpoint(folder, model_type, "default" if model_type == "roberta" else "auto")
    weights = {
        name: tensor for name, tensor in load_file(folder / "model.safetensors").items() if "lm_head" not in name
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_bytes()) | {"architectures": [architecture]}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("model_type", "architecture"), [("roberta", "RobertaForMaskedLM"), ("mpnet", "MPNetForMaskedLM")]
)
def test_auto_takes_a_task_whose_weights_are_there(
    model_type: str, architecture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _headless(tmp_path / "checkpoint", model_type, architecture)
    options = ["--model", str(folder), "--output", str(tmp_path / "output"), "--formats", "torchscript"]
    assert main(options) == 0
    assert (
        "Exported for default: task masked-lm needs weights that the checkpoint does not have"
        in capsys.readouterr().err
    )
    assert main([*options, "--task", "masked-lm"]) == 4
    error = json.loads((tmp_path / "output" / "hfexport.json").read_bytes())["error"]
    assert "needs weights that the checkpoint does not have: lm_head" in error["message"]
    assert error["remedy"] == "The checkpoint has all weights for: default."


def test_buffers_that_stay_in_float32_do_so_without_data(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, "deepseek_v3", "auto", dtype="fp16")
    config = known_architectures()["llama"](transformers.AutoConfig.from_pretrained(folder), TASKS["causal-lm"])
    loaded = load_model(folder, config, "fp16")
    bias = "model.layers.1.mlp.gate.e_score_correction_bias"
    assert dict(loaded.named_buffers())[bias].dtype == torch.float32
    empty = empty_model(config, "fp16", FakeTensorMode(allow_non_fake_inputs=True), loaded=loaded)
    assert dict(empty.named_buffers())[bias].dtype == torch.float32
    assert {name: one.dtype for name, one in empty.named_parameters()} == {
        name: one.dtype for name, one in loaded.named_parameters()
    }


def test_routers_have_the_dtype_that_they_compute_in(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, "nllb-moe", "auto", dtype="fp16")
    config = known_architectures()["bart"](transformers.AutoConfig.from_pretrained(folder), TASKS["seq2seq-lm"])
    loaded = load_model(folder, config, "fp16")
    weights = dict(loaded.named_parameters())
    assert weights["model.encoder.layers.1.ffn.router.classifier.weight"].dtype == torch.float32
    assert weights["model.encoder.layers.1.ffn.experts.expert_0.fc1.weight"].dtype == torch.float16
