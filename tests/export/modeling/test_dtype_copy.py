"""Weights in another dtype than the export's are written once more in that, and mapped by all who load the model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from hfexport.checkpoint import open_checkpoint
from hfexport.cli.main import main
from hfexport.export_config import ExportConfig
from hfexport.export_config.builtin import known_architectures
from hfexport.export_config.tasks import TASKS
from hfexport.modeling.conversion.dtype_copy import plan_dtypes, write_in_dtype
from hfexport.modeling.load import load_model
from tiny import make_checkpoint

TORCH = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def _config(folder: Path, task: str) -> ExportConfig:
    config = transformers.AutoConfig.from_pretrained(folder)
    return known_architectures()[config.model_type](config, TASKS[task])


def _copied(folder: Path, task: str, dtype: str, target: Path) -> tuple[Path, list[int]]:
    checkpoint = open_checkpoint(folder)
    plan = plan_dtypes(checkpoint, _config(folder, task), dtype)
    told: list[int] = []
    write_in_dtype(checkpoint, plan, target, told.append)
    assert sum(told) == plan.size_bytes
    return target, told


def _mapped_file(tensor: torch.Tensor) -> str:
    """The file that a tensor's memory is mapped from; empty for memory of the process."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_, name = line.split(maxsplit=5) if line.count(" ") > 5 else (*line.split()[:5], "")
        begin, end = (int(address, 16) for address in span.split("-"))
        if begin <= tensor.data_ptr() < end:
            return str(name).strip()
    return ""


@pytest.mark.parametrize(("stored", "dtype"), [("bf16", "fp32"), ("bf16", "fp16"), ("fp16", "fp32"), ("fp32", "fp16")])
def test_a_copy_holds_what_the_loader_would_make_and_is_mapped(stored: str, dtype: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", "llama", "causal-lm", dtype=stored, shards=3)
    copy, _ = _copied(folder, "causal-lm", dtype, tmp_path / "copy")
    wanted = load_model(folder, _config(folder, "causal-lm"), dtype).state_dict()
    model = load_model(copy, _config(folder, "causal-lm"), dtype)
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == TORCH[dtype] and torch.equal(tensor, wanted[name])
        assert _mapped_file(tensor).endswith("copy/model.safetensors"), name
    assert not any(_mapped_file(tensor).endswith(".safetensors") for tensor in wanted.values())


def test_what_the_model_keeps_in_fp32_is_stored_so(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", "t5", "seq2seq-lm", dtype="bf16")
    copy, _ = _copied(folder, "seq2seq-lm", "fp16", tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    kept = {name for name, tensor in weights.items() if tensor.dtype == torch.float32}
    assert kept == {name for name in weights if name.endswith("DenseReluDense.wo.weight")} != set()
    given = load_file(folder / "model.safetensors")
    assert all(torch.equal(weights[name], given[name].float()) for name in kept)


def test_nothing_is_copied_where_the_dtype_is_the_right_one(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", "bert", "default", dtype="fp16")
    assert plan_dtypes(open_checkpoint(folder), _config(folder, "default"), "fp16").dtypes == {}


def test_a_weight_that_the_loader_merges_stays_as_it_is_for_fp16(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", "llama", "causal-lm", dtype="bf16")
    checkpoint = open_checkpoint(folder)
    tensors = {**checkpoint.tensors, "model.layers.0.experts.3.w1.weight": next(iter(checkpoint.tensors.values()))}
    object.__setattr__(checkpoint, "tensors", tensors)
    assert set(plan_dtypes(checkpoint, _config(folder, "causal-lm"), "fp16").dtypes) == set(
        load_file(folder / "model.safetensors")
    )


def test_from_the_command_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", "llama", "causal-lm-with-past", dtype="bf16")
    output = tmp_path / "output"
    assert main(["--model", str(folder), "--formats", "onnx", "--output", str(output)]) == 0
    manifest = json.loads((output / "hfexport.json").read_text())
    assert (manifest["verdict"], manifest["dtype"]) == ("passed", "fp32")
    assert "Weights in fp32" in [stage["name"] for stage in manifest["stages"]]
    assert not [path for path in output.rglob("*") if path.suffix == ".safetensors"]
