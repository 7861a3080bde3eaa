"""TorchScript variants through the command line, and broken ones of each kind, which must fail."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from broken import METADATA, export_config
from command import manifest_of, run
from hfexport.backends.base import Artifact, ExportJob
from hfexport.backends.torchscript.backend import TorchScriptBackend
from hfexport.backends.torchscript.variants.linear import LARGEST
from hfexport.backends.torchscript.variants.maker import TorchScriptVariants
from hfexport.backends.torchscript.variants.names import VARIANTS
from hfexport.manifest.entries import check_manifest
from hfexport.validation.mapped_script import load_mapped
from hfexport.validation.quality import ModelAnswers, Quality, measure_variant, start_model
from hfexport.validation.quality.stored_script import compare_scripts
from tiny import make_checkpoint

Change = Callable[[dict[str, torch.Tensor]], None]


@dataclass(frozen=True)
class Model:
    """A tiny model with its plain file and its answers."""

    checkpoint: Path
    plain: Artifact
    answers: ModelAnswers

    def make(self, name: str, folder: Path, checkpoint: Path | None = None) -> Artifact:
        """Make a variant, of a changed checkpoint if one is given."""
        assert self.plain.config is not None
        job = ExportJob(checkpoint or self.checkpoint, self.plain.config, "fp32", folder, METADATA)
        plain = TorchScriptBackend().export(job) if checkpoint else self.plain
        copy = folder / "model.pt"
        if not copy.exists():
            shutil.copyfile(plain.path, copy)
        return TorchScriptVariants().make(VARIANTS[name], replace(self.plain, path=copy), job)

    def judge(self, variant: Artifact, folder: Path) -> Quality:
        limits = VARIANTS["frozen" if "frozen" in variant.path.name else "dynamic_int8"].limits
        return measure_variant(
            [variant], [self.plain], self.answers, limits, folder=folder, env=os.environ, timeout_s=300
        )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    folder = tmp_path_factory.mktemp("scripts")
    checkpoint = make_checkpoint(folder / "checkpoint", "bert", "default", tokenizer=True, hidden_size=64)
    config = export_config(checkpoint, "default")
    plain = TorchScriptBackend().export(ExportJob(checkpoint, config, "fp32", folder, METADATA))
    answers = start_model(
        checkpoint, [config], tokenizer=checkpoint, data=None, folder=folder / "answers", env=os.environ
    )
    with answers.worker:
        yield Model(checkpoint, replace(plain, config=config, dtype="fp32"), answers)


def changed(model: Model, folder: Path, change: Change) -> Path:
    """Copy the checkpoint with other weights."""
    shutil.copytree(model.checkpoint, folder)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def of(weights: dict[str, torch.Tensor], part: str) -> str:
    return next(name for name in sorted(weights) if part in name and name.endswith("weight"))


def scale_a_layer(weights: dict[str, torch.Tensor]) -> None:
    """Make one layer's weights half again as large."""
    weights[of(weights, "intermediate.dense")] *= 1.5


def zero_a_weight(weights: dict[str, torch.Tensor]) -> None:
    """Zero the weights of one layer."""
    weights[of(weights, "attention.output.dense")] *= 0


def change_a_row(weights: dict[str, torch.Tensor]) -> None:
    """Change a single row of the table of embeddings, which no text may read."""
    weights[of(weights, "word_embeddings")][7] += 1


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_as_it_is_made_passes(model: Model, name: str, tmp_path: Path) -> None:
    variant = model.make(name, tmp_path)
    assert variant.path.name == f"model_{name}.pt"
    quality = model.judge(variant, tmp_path)
    assert quality.failures == ()
    assert quality.verdict == "passed"
    error, _, missing = compare_scripts(model.plain.path, variant.path)
    assert (error <= 1, missing) == (True, [])
    assert (error > 0) == (name == "dynamic_int8")


@pytest.mark.parametrize("name", VARIANTS)
def test_the_same_model_gives_the_same_bytes(model: Model, name: str, tmp_path: Path) -> None:
    files = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        files.append(model.make(name, folder).path.read_bytes())
    assert files[0] == files[1]
    assert b"/work" not in files[0]
    assert str(tmp_path).encode() not in files[0]


def test_sums_of_products_fit_into_16_bits_and_activations_have_8(model: Model, tmp_path: Path) -> None:
    """Processors without VNNI add pairs of products in 16 bits."""
    module = torch.jit.load(str(model.make("dynamic_int8", tmp_path).path))
    packed = [part for part in module.modules() if part.original_name == "LinearPackedParams"]
    weights = [torch.ops.quantized.linear_unpack(part._packed_params)[0].int_repr() for part in packed]
    largest = max(int(weight.int().abs().max()) for weight in weights)
    assert 60 <= largest <= LARGEST
    assert 2 * 255 * LARGEST < 2**15
    parts = [part for part in module.modules() if part.original_name == "DynamicLinear"]
    calls = [node for part in parts for node in part.graph.findAllNodes("quantized::linear_dynamic")]
    assert len(calls) == len(parts) == len(packed)
    assert {list(node.inputs())[2].toIValue() for node in calls} == {False}


def change_a_bias(weights: dict[str, torch.Tensor]) -> None:
    """Change one element of a bias."""
    weights[next(name for name in sorted(weights) if name.endswith("intermediate.dense.bias"))][3] += 0.01


def test_a_large_bias_is_compared_with_that_of_the_layer(tmp_path: Path) -> None:
    """A bias of a layer with 8-bit weights is not among the file's tensors."""
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "bert", "default", intermediate_size=1200)
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    weights = load_file(other / "model.safetensors")
    change_a_bias(weights)
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    (tmp_path / "plain").mkdir()
    config = export_config(checkpoint, "default")
    plain = TorchScriptBackend().export(ExportJob(checkpoint, config, "fp32", tmp_path / "plain", METADATA))
    # The model's answers are not needed: only stored weights are compared.
    model = Model(checkpoint, replace(plain, config=config, dtype="fp32"), None)  # type: ignore[arg-type]
    found = []
    for name, source in (("right", checkpoint), ("wrong", other)):
        (tmp_path / name).mkdir()
        found.append(compare_scripts(plain.path, model.make("dynamic_int8", tmp_path / name, source).path))
    (error, _, missing), (wrong, name, _) = found
    assert (error <= 1, missing) == (True, [])
    assert wrong == float("inf")
    assert name.endswith("intermediate.dense.bias")


@pytest.mark.parametrize("change", [scale_a_layer, zero_a_weight, change_a_row])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_wrong_weight_is_found(model: Model, name: str, change: Change, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    variant = model.make(name, tmp_path / "made", changed(model, tmp_path / "checkpoint", change))
    error, _, missing = compare_scripts(model.plain.path, variant.path)
    assert error > 1 or missing


@pytest.mark.parametrize("name", VARIANTS)
def test_a_dropped_operator_fails(model: Model, name: str, tmp_path: Path) -> None:
    """The weights are right, and the activations are left out."""
    checkpoint = changed(model, tmp_path / "checkpoint", lambda _: None)
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    (checkpoint / "config.json").write_text(json.dumps(config | {"hidden_act": "linear"}), encoding="utf-8")
    (tmp_path / "made").mkdir()
    assert model.plain.config is not None
    linear = replace(model, plain=replace(model.plain, config=export_config(checkpoint, "default")))
    quality = model.judge(linear.make(name, tmp_path / "made", checkpoint), tmp_path)
    assert quality.verdict == "failed"
    assert quality.failures


@pytest.mark.parametrize("name", VARIANTS)
def test_a_damaged_file_fails(model: Model, name: str, tmp_path: Path) -> None:
    variant = model.make(name, tmp_path)
    variant.path.write_bytes(variant.path.read_bytes()[:5000])
    quality = model.judge(variant, tmp_path)
    assert quality.verdict == "failed"
    assert variant.path.name in quality.reason


@pytest.mark.parametrize("name", VARIANTS)
def test_tensors_of_a_variant_can_be_mapped(model: Model, name: str, tmp_path: Path) -> None:
    """Large files are run with tensors mapped from the archive, in which they are aligned."""
    path = model.make(name, tmp_path).path
    module, _ = load_mapped(path, "")
    ids = torch.tensor([[5, 6, 7]])
    example = [torch.ones_like(ids) if "mask" in spec.name else ids * 0 for spec in model.plain.config.inputs]  # type: ignore[union-attr]
    with torch.inference_mode():
        expected = torch.jit.load(str(path))(*example)
        assert torch.equal(module(*example)[0], expected[0])


def test_both_variants_by_the_command_line(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "gpt2", "gpt2", "causal-lm-with-past", tokenizer=True)
    output = tmp_path / "out"
    code, said = run(
        *(output, "--model", checkpoint, "--formats", "torchscript", "--variants", "frozen,dynamic_int8"),
        *("--min-similarity", "0.9"),
    )
    assert code == 0, said
    manifest = manifest_of(output)
    check_manifest(manifest)  # type: ignore[arg-type]
    assert [(entry["name"], entry["paths"], entry["format"]) for entry in manifest["variants"]] == [
        ("frozen", ["torchscript/model_frozen.pt"], "torchscript"),
        ("dynamic_int8", ["torchscript/model_dynamic_int8.pt"], "torchscript"),
    ]
    frozen, quantised = ({m["name"]: m["value"] for m in one["quality"]["measures"]} for one in manifest["variants"])
    assert frozen["mean_cosine"] > 0.99999
    assert 0 < quantised["weight_error"] <= 1
    assert {"kl_divergence", "perplexity_ratio", "greedy_agreement"} <= quantised.keys()
    arguments = ["verify", str(output), "--model", str(checkpoint), "--min-similarity", "0.9"]
    assert run(None, *arguments)[0] == 0


def test_a_variant_needs_its_format(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "bert", "bert", "default")
    code, said = run(
        *(tmp_path / "out", "--model", checkpoint, "--formats", "onnx", "--variants", "int8,frozen,dynamic_int8")
    )
    assert code == 2
    assert "asks for frozen, dynamic_int8, which means nothing without format torchscript: add it to" in said
    assert "int8, which means nothing without format onnx" not in said
