"""What wrappers add to the names of weights is removed, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from hfexport.checkpoint.wrapped_names import leading_part, unwrap_names
from hfexport.errors import CheckpointError
from hfexport.modeling.wrapped_names import unwrapped_names
from tiny import make_checkpoint

WRAPPED: dict[str, tuple[Callable[[str], str], tuple[str, ...]]] = {
    "torch.compile": (lambda name: f"_orig_mod.{name}", ("_orig_mod.",)),
    "data parallel": (lambda name: f"module.{name}", ("module.",)),
    "both": (lambda name: f"_orig_mod.module.{name}", ("module.", "_orig_mod.")),
    "a compiled layer": (lambda name: name.replace(".layer.0.", ".layer.0._orig_mod."), ("_orig_mod.",)),
    "FSDP": (
        lambda name: "_fsdp_wrapped_module." + name.replace("encoder.", "encoder._fsdp_wrapped_module."),
        ("_fsdp_wrapped_module.",),
    ),
    "Lightning": (lambda name: f"model.{name}", ("model.",)),
    "Lightning and compiled": (lambda name: f"model._orig_mod.{name}", ("_orig_mod.", "model.")),
    "any attribute": (lambda name: f"student.net.{name}", ("student.net.",)),
    "none": (lambda name: name, ()),
}


def _names(folder: Path) -> list[str]:
    return list(load_file(folder / "model.safetensors"))


def _unwrapped(folder: Path, names: list[str]) -> tuple[list[str], tuple[str, ...]]:
    found = unwrapped_names(folder, json.loads((folder / "config.json").read_bytes()), names)
    return [found.names[name] for name in names], found.removed


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("bert") / "c", "bert", "sequence-classification")


@pytest.mark.parametrize("kind", WRAPPED)
def test_what_a_wrapper_adds_is_removed(kind: str, classifier: Path) -> None:
    wrap, removed = WRAPPED[kind]
    names = _names(classifier)
    assert _unwrapped(classifier, [wrap(name) for name in names]) == (names, removed)


@pytest.mark.parametrize(
    ("model_type", "task"),
    [("llama", "causal-lm"), ("gpt2", "causal-lm"), ("bart", "seq2seq-lm"), ("t5", "seq2seq-lm"), ("bert", "default")],
)
def test_the_prefix_of_the_model_itself_stays(model_type: str, task: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", model_type, task)
    names = _names(folder)
    assert _unwrapped(folder, names) == (names, ())
    assert _unwrapped(folder, [f"model.{name}" for name in names]) == (names, ("model.",))


@pytest.mark.parametrize(("model_type", "task"), [("vit", "image-classification"), ("mixtral", "auto")])
def test_names_that_transformers_itself_changes_are_known(model_type: str, task: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", model_type, task)
    names = _names(folder)
    assert _unwrapped(folder, [f"model.{name}" for name in names]) == (names, ("model.",))
    assert _unwrapped(folder, names) == (names, ())


def test_tensors_beside_the_model_keep_their_names(classifier: Path) -> None:
    names = [f"model.{name}" for name in _names(classifier)]
    found, removed = _unwrapped(classifier, [*names, "train_accuracy.total"])
    assert removed == ("model.",)
    assert found[-1] == "train_accuracy.total"


def test_two_names_that_become_one_are_refused() -> None:
    with pytest.raises(CheckpointError, match="two of its weights are 'a.weight' in the model"):
        unwrap_names(["a.weight", "_orig_mod.a.weight"], lambda _: ())


def test_the_leading_part_is_that_of_nearly_all() -> None:
    assert leading_part(["model.a", "model.b"]) == "model"
    assert leading_part(["model.a", "other.b"]) == ""
    assert leading_part(["weight", "bias"]) == ""
