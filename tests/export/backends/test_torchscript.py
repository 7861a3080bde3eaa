"""TorchScript artifacts: right at other shapes, self-contained, free of the machine that made them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import hfexport
from hfexport.backends.base import Artifact, ExportJob
from hfexport.backends.torchscript.archive import make_reproducible
from hfexport.backends.torchscript.backend import TorchScriptBackend
from hfexport.backends.torchscript.trace import give_own_storage
from hfexport.errors import ExportError
from hfexport.export_config import ExportConfig
from hfexport.export_config.builtin import config_class_for
from hfexport.export_config.probes import trace_inputs, validation_probes
from hfexport.export_config.tasks import TASKS
from hfexport.modeling.load import FlatModel, load_model
from hfexport.runtime import DESCRIPTION_FILE, load_torchscript
from tiny import make_checkpoint

METADATA = {"producer": "hfexport", "version": "0", "source": "tiny", "task": "any"}


def export_config(checkpoint: Path, model_type: str, task: str) -> ExportConfig:
    config = transformers.AutoConfig.from_pretrained(checkpoint)
    return config_class_for(model_type)(config, TASKS[task])


def export(
    checkpoint: Path,
    config: ExportConfig,
    folder: Path,
    dtype: str = "fp32",
    fixed_sizes: Mapping[str, int] | None = None,
) -> Artifact:
    folder.mkdir()
    job = ExportJob(checkpoint, config, dtype, folder, METADATA, fixed_sizes=fixed_sizes or {})
    return TorchScriptBackend().export(job)


def eager(checkpoint: Path, config: ExportConfig, inputs: Mapping[str, Any], dtype: str = "fp32") -> list[torch.Tensor]:
    flat = FlatModel(
        load_model(checkpoint, config, dtype),
        [spec.name for spec in config.inputs],
        [spec.name for spec in config.outputs],
    )
    with torch.inference_mode():
        return list(flat(*(torch.from_numpy(array) for array in inputs.values())))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("bert"), "bert", "masked-lm")


@pytest.fixture(scope="module")
def config(checkpoint: Path) -> ExportConfig:
    return export_config(checkpoint, "bert", "masked-lm")


@pytest.fixture(scope="module")
def artifact(checkpoint: Path, config: ExportConfig, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return export(checkpoint, config, tmp_path_factory.mktemp("artifact") / "torchscript")


@pytest.fixture(scope="module")
def image_artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("image")
    image_checkpoint = make_checkpoint(folder / "checkpoint", "levit", "image-classification")
    image_config = export_config(image_checkpoint, "levit", "image-classification")
    return export(image_checkpoint, image_config, folder / "torchscript")


@pytest.fixture(scope="module")
def fixed_artifact(checkpoint: Path, config: ExportConfig, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("fixed") / "torchscript"
    return export(checkpoint, config, folder, fixed_sizes={"batch": 3, "sequence": 12})


def load(artifact: Artifact) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.load(str(artifact.path))  # type: ignore[no-untyped-call, no-any-return]


def test_the_extra_file_names_inputs_and_outputs_in_order(artifact: Artifact, config: ExportConfig) -> None:
    with zipfile.ZipFile(artifact.path) as archive:
        description = json.loads(archive.read(f"model/extra/{DESCRIPTION_FILE}"))

    assert [(entry["name"], entry["dtype"], entry["axes"]) for entry in description["inputs"]] == [
        ("input_ids", "int64", ["batch", "sequence"]),
        ("attention_mask", "int64", ["batch", "sequence"]),
        ("token_type_ids", "int64", ["batch", "sequence"]),
    ]
    assert [(entry["name"], entry["dtype"]) for entry in description["outputs"]] == [("logits", "float32")]
    assert description["metadata"] == METADATA
    assert description["fixed_sizes"] == {} == artifact.fixed_sizes
    assert artifact.files == (artifact.path,)
    assert [spec.name for spec in config.inputs] == list(load_torchscript(artifact.path).input_names)


def test_forward_takes_the_inputs_by_name(artifact: Artifact, config: ExportConfig) -> None:
    module = load(artifact)
    inputs = {name: torch.from_numpy(array) for name, array in trace_inputs(config, "fp32").items()}
    assert [argument.name for argument in module.forward.schema.arguments] == ["self", *inputs]
    backwards = dict(reversed(inputs.items()))
    for by_position, by_name in zip(module(*inputs.values()), module(**backwards), strict=True):
        assert torch.equal(by_position, by_name)


def test_a_name_with_dots_becomes_an_argument_with_underscores(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "model", "gpt2", "causal-lm-with-past")
    artifact = export(checkpoint, export_config(checkpoint, "gpt2", "causal-lm-with-past"), tmp_path / "out")
    names = [argument.name for argument in load(artifact).forward.schema.arguments]
    assert names[1:5] == ["input_ids", "attention_mask", "position_ids", "past_key_values_0_key"]


def test_it_runs_where_only_torch_can_be_imported(
    artifact: Artifact, checkpoint: Path, config: ExportConfig, tmp_path: Path
) -> None:
    inputs = validation_probes(config)[3].inputs(config, "fp32")
    np.savez(tmp_path / "inputs.npz", **inputs)  # type: ignore[arg-type]
    program = """
import sys
for name in ("transformers", "hfexport", "safetensors", "huggingface_hub"):
    sys.modules[name] = None
import numpy as np, torch
torch.set_num_threads(1)
module = torch.jit.load(sys.argv[1])
inputs = np.load(sys.argv[2])
output, = module(*(torch.from_numpy(inputs[name]) for name in ("input_ids", "attention_mask", "token_type_ids")))
assert not output.requires_grad and not module.training
np.save(sys.argv[3], output.numpy())
"""
    arguments = [str(artifact.path), str(tmp_path / "inputs.npz"), str(tmp_path / "output.npy")]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, capture_output=True)

    expected = eager(checkpoint, config, inputs)[0].numpy()
    np.testing.assert_allclose(np.load(tmp_path / "output.npy"), expected, atol=1e-5, rtol=0)


def test_tied_weights_have_storage_of_their_own(artifact: Artifact, checkpoint: Path, config: ExportConfig) -> None:
    tied = load_model(checkpoint, config, "fp32")
    tied_names = {name for name, _ in tied.named_parameters(remove_duplicate=False)}
    assert len({parameter.data_ptr() for parameter in tied.parameters()}) < len(tied_names)

    module = load(artifact)
    parameters = dict(module.named_parameters(remove_duplicate=False))
    assert {name.removeprefix("model.") for name in parameters} == tied_names
    tensors = [*parameters.values(), *(tensor for _, tensor in module.named_buffers(remove_duplicate=False))]
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == len(tensors)
    embedding, decoder = (
        parameters[f"model.{name}.weight"] for name in ("bert.embeddings.word_embeddings", "cls.predictions.decoder")
    )
    assert torch.equal(embedding, decoder)
    assert artifact.details["untied_tensors"] == 2  # the embedding and the head's bias


def test_every_kind_of_shared_memory_is_given_up() -> None:
    model = torch.nn.ModuleDict({name: torch.nn.Linear(3, 3, bias=False) for name in ("one", "two", "three", "four")})
    one, two, three, four = linears = [linear for linear in model.children() if isinstance(linear, torch.nn.Linear)]
    both = torch.arange(18.0).reshape(6, 3)
    one.weight, two.weight = torch.nn.Parameter(both[:3]), torch.nn.Parameter(both[3:])  # views of one storage
    three.weight = one.weight  # the very same
    four.weight = torch.nn.Parameter(both[:3].t())  # not contiguous
    expected = [parameter.detach().clone() for parameter in (one.weight, two.weight, three.weight, four.weight)]

    assert give_own_storage(model) == 4
    weights = [linear.weight for linear in linears]
    assert all(torch.equal(weight, value) for weight, value in zip(weights, expected, strict=True))
    assert len({weight.untyped_storage().data_ptr() for weight in weights}) == 4
    assert all(weight.is_contiguous() and not weight.requires_grad for weight in weights)
    assert give_own_storage(model) == 0


@pytest.mark.parametrize(
    ("model_type", "task", "changes"),
    [
        ("bert", "multiple-choice", {}),
        ("roberta", "question-answering", {}),
        ("albert", "token-classification", {}),
        ("deberta-v2", "sequence-classification", {"type_vocab_size": 2}),
        ("gpt2", "causal-lm-with-past", {}),
        ("gpt2", "sequence-classification", {"pad_token_id": None}),
        ("llama", "causal-lm-with-past", {}),
        ("bloom", "causal-lm-with-past", {}),  # its activation is an autograd function
        ("gpt_neo", "default-with-past", {}),
        ("qwen3", "default-with-past", {}),
        ("vit", "default", {}),
        ("convnext", "image-classification", {}),
        ("resnet", "default", {}),
    ],
)
def test_it_is_right_at_shapes_that_were_not_traced(
    model_type: str, task: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", model_type, task, **changes)
    config = export_config(checkpoint, model_type, task)
    loaded = load_torchscript(export(checkpoint, config, tmp_path / "torchscript").path)

    for probe in validation_probes(config):
        inputs = probe.inputs(config, "fp32")
        outputs = loaded(**inputs)
        assert list(outputs) == [spec.name for spec in config.outputs]
        for (name, found), expected in zip(outputs.items(), eager(checkpoint, config, inputs), strict=True):
            message = f"{name} at {probe.name}"
            np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-5, rtol=1e-5, err_msg=message)


def test_half_precision_stays_half_precision(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "llama", "causal-lm-with-past", dtype="fp16")
    config = export_config(checkpoint, "llama", "causal-lm-with-past")
    loaded = load_torchscript(export(checkpoint, config, tmp_path / "torchscript", dtype="fp16").path)
    inputs = validation_probes(config)[1].inputs(config, "fp16")

    outputs = loaded(**inputs)
    assert {tensor.dtype for tensor in outputs.values()} == {torch.float16}
    expected = eager(checkpoint, config, inputs, "fp16")
    np.testing.assert_allclose(outputs["logits"].numpy(), expected[0].numpy(), atol=1e-2)
    with pytest.raises(TypeError, match=r"past_key_values.0.key is float32, but this artifact takes float16"):
        loaded(**{**inputs, "past_key_values.0.key": inputs["past_key_values.0.key"].astype(np.float32)})


def test_no_device_is_baked_in(artifact: Artifact, config: ExportConfig) -> None:
    module = load(artifact)
    with zipfile.ZipFile(artifact.path) as archive:
        code = [archive.read(name).decode() for name in archive.namelist() if "/code/" in name]
    assert "prim.device(" in "".join(code)
    assert not [text for text in code if "torch.device(" in text or "torch.dropout(" in text]

    for submodule in module.modules():
        for name, tensor in [*submodule.named_parameters(recurse=False), *submodule.named_buffers(recurse=False)]:
            script: Any = submodule._c
            script.setattr(name, tensor.detach().to("meta"))
    inputs = [torch.from_numpy(array).to("meta") for array in trace_inputs(config, "fp32").values()]
    (logits,) = module(*inputs)
    assert logits.device.type == "meta"
    assert logits.shape == (2, 7, 101)


@pytest.mark.parametrize(
    ("model_type", "task"),
    [("bert", "masked-lm"), ("albert", "question-answering"), ("llama", "causal-lm-with-past"), ("resnet", "default")],
)
def test_the_same_model_gives_the_same_bytes(model_type: str, task: str, tmp_path: Path) -> None:
    """Whatever the process traced before: torch numbers classes and values by counters that never start again."""
    checkpoint = make_checkpoint(tmp_path / "checkpoint", model_type, task)
    config = export_config(checkpoint, model_type, task)
    other = make_checkpoint(tmp_path / "other", "distilbert", "default")
    first = export(checkpoint, config, tmp_path / "first")
    load_torchscript(first.path)
    export(other, export_config(other, "distilbert", "default"), tmp_path / "between")
    second = export(checkpoint, config, tmp_path / "second")

    assert hashlib.sha256(second.path.read_bytes()).digest() == hashlib.sha256(first.path.read_bytes()).digest()


def test_another_process_gives_the_same_bytes(artifact: Artifact, checkpoint: Path, tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from hfexport.backends.base import ExportJob
from hfexport.backends.torchscript.backend import TorchScriptBackend
from hfexport.export_config.builtin import config_class_for
from hfexport.export_config.tasks import TASKS
import transformers
checkpoint, folder, metadata = Path(sys.argv[1]), Path(sys.argv[2]), eval(sys.argv[3])
config = config_class_for("bert")(transformers.AutoConfig.from_pretrained(checkpoint), TASKS["masked-lm"])
TorchScriptBackend().export(ExportJob(checkpoint, config, "fp32", folder, metadata))
"""
    arguments = [str(checkpoint), str(tmp_path), repr(METADATA)]
    environment = {**os.environ, "PYTHONPATH": str(Path(hfexport.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, capture_output=True, env=environment)

    assert (tmp_path / "model.pt").read_bytes() == artifact.path.read_bytes()


def test_other_weights_give_other_bytes(artifact: Artifact, config: ExportConfig, tmp_path: Path) -> None:
    other = export(make_checkpoint(tmp_path / "other", "bert", "masked-lm", seed=1), config, tmp_path / "torchscript")
    assert other.path.stat().st_size == artifact.path.stat().st_size
    assert other.path.read_bytes() != artifact.path.read_bytes()


def test_the_file_says_nothing_of_the_machine_that_made_it(artifact: Artifact) -> None:
    assert zipfile.ZipFile(artifact.path).testzip() is None
    content = artifact.path.read_bytes()
    for trace in (
        b"site-packages",
        str(Path(transformers.__file__).parent).encode(),
        str(artifact.path.parent).encode(),
    ):
        assert trace not in content
    with zipfile.ZipFile(artifact.path) as archive:
        text = b"".join(archive.read(name) for name in archive.namelist() if "/data/" not in name)
    assert b"modeling_bert" in text  # what is searched is readable, so the search above could have found something
    assert b"site-packages" not in text


def test_the_user_sees_no_warnings(
    checkpoint: Path, config: ExportConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        artifact = export(checkpoint, config, tmp_path / "torchscript")
        load_torchscript(artifact.path)
    assert capfd.readouterr() == ("", "")


def test_a_model_that_cannot_be_traced_is_an_export_error(
    checkpoint: Path, config: ExportConfig, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="task masked-lm cannot be traced to TorchScript: ") as caught:
        export(checkpoint, config, tmp_path / "torchscript", fixed_sizes={"batch": 1, "sequence": 999})
    assert "\n" not in caught.value.message
    assert "onnx" in caught.value.remedy
    assert caught.value.exit_code == 5


def test_a_file_that_cannot_be_written_is_an_export_error(
    checkpoint: Path, config: ExportConfig, tmp_path: Path
) -> None:
    job = ExportJob(checkpoint, config, "fp32", tmp_path / "not there", METADATA)
    with pytest.raises(ExportError, match=r"cannot be saved as model.pt: "):
        TorchScriptBackend().export(job)


@pytest.mark.parametrize("names", [["model/data.pkl", "model/data/0"], ["model/data/0"], ["model/code/__torch__/a.py"]])
def test_an_archive_of_another_layout_is_refused(names: list[str], tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "x = 1\n")
    with pytest.raises(ValueError, match=r"tensors do not come before code|before the first definition"):
        make_reproducible(path)


def test_loading_says_what_is_wrong_with_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_torchscript(tmp_path / "model.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(torch.nn.Linear(2, 2).eval(), torch.zeros(1, 2))  # type: ignore[no-untyped-call]
        torch.jit.save(traced, str(tmp_path / "model.pt"))
    with pytest.raises(ValueError, match=r"no hfexport.json inside"):
        load_torchscript(tmp_path / "model.pt")


@pytest.mark.parametrize("size", [(32, 40), (64, 16), (16, 64), (32, 1), (40, 40)])
def test_an_image_of_another_size_is_refused(size: tuple[int, int], image_artifact: Artifact) -> None:
    module = load(image_artifact)
    assert len(module(torch.randn(2, 3, 32, 32))) == 1
    with pytest.raises(RuntimeError, match="unflatten: Provided sizes"):
        module(torch.randn(2, 3, *size))


@pytest.mark.parametrize("shape", [(1, 12), (3, 11), (3, 13), (12, 3)])
def test_a_trace_of_fixed_sizes_refuses_all_others(shape: tuple[int, int], fixed_artifact: Artifact) -> None:
    module = load(fixed_artifact)
    inputs = [torch.ones((3, 12), dtype=torch.int64)] * 3
    assert len(module(*inputs)) == 1
    with pytest.raises(RuntimeError, match="unflatten: Provided sizes"):
        module(*(tensor.new_ones(shape) for tensor in inputs))
