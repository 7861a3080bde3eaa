"""sentence-transformers folders: what is read of them, and that both ways of pooling agree with each other."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from hfexport.checkpoint.sentence import bare_task, read_sentence_modules
from hfexport.checkpoint.sentence_folder import at_the_root
from hfexport.errors import CheckpointError, UnsupportedError
from hfexport.export_config import SentenceModules
from hfexport.export_config.sentence import ACTIVATIONS, POOLING_MODES, Dense
from hfexport.modeling.pooling import SentenceModel
from hfexport.validation.reference.sentence import sentence_embeddings
from sentence.make_references import CASES, REFERENCES, drawn, expected_key
from tiny.sentence import write_modules

MASKS = {
    "none": [[1, 1, 1, 1], [1, 1, 1, 1]],
    "right": [[1, 1, 1, 1], [1, 1, 0, 0]],
    "left": [[1, 1, 1, 1], [0, 0, 0, 1]],
}


class _Tokens(torch.nn.Module):
    """In the place of a transformer: gives the token embeddings it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(1))

    def forward(self, tokens: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        del attention_mask
        return SimpleNamespace(last_hidden_state=tokens, logits=tokens)


def _both(modules: SentenceModules, padding: str) -> tuple[np.ndarray, np.ndarray]:
    tokens = np.random.default_rng(3).standard_normal((2, 4, 5)).astype(np.float32)
    mask = np.array(MASKS[padding])
    model = SentenceModel(_Tokens(), modules)
    with torch.no_grad():
        given = model(tokens=torch.from_numpy(tokens), attention_mask=torch.from_numpy(mask))
    return given["sentence_embedding"].numpy(), sentence_embeddings(tokens, mask, modules)


@pytest.mark.parametrize("padding", MASKS)
@pytest.mark.parametrize("mode", POOLING_MODES)
def test_the_exported_pooling_is_the_plain_one(mode: str, padding: str) -> None:
    found, wanted = _both(SentenceModules((mode,), normalize=True), padding)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert wanted.shape == (2, 5)


def test_modes_differ_so_that_a_mistake_would_show() -> None:
    seen = [_both(SentenceModules((mode,)), "right")[1] for mode in POOLING_MODES]
    for number, one in enumerate(seen):
        for other in seen[:number]:
            assert np.abs(one - other).max() > 1e-2


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_dense_layers(activation: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    file = tmp_path / "model.safetensors"
    weights = {"linear.weight": rng.standard_normal((3, 10)), "linear.bias": rng.standard_normal(3)}
    save_file({name: array.astype(np.float32) for name, array in weights.items()}, file)
    modules = SentenceModules(("cls", "mean"), (Dense(str(file), activation),))
    found, wanted = _both(modules, "right")
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert wanted.shape == (2, 3)
    assert SentenceModules.from_dict(json.loads(json.dumps(modules.to_dict()))) == modules


def test_a_folder_is_read(tmp_path: Path) -> None:
    write_modules(tmp_path, ("mean", "max"), dense=(6, 64))
    modules = read_sentence_modules(tmp_path)
    assert modules.pooling == ("max", "mean")
    assert [layer.activation for layer in modules.dense] == ["Tanh"]
    assert modules.normalize


@pytest.fixture(scope="module")
def references() -> dict[str, np.ndarray]:
    with np.load(REFERENCES) as arrays:
        return dict(arrays)


ASKED = [
    (case, padding)
    for case in CASES
    for padding in ("none", "right", "left")
    # The library's max overwrites padded token embeddings in place, the first of which its cls has taken by then.
    if (case, padding) != ("cls and max", "left")
]


@pytest.mark.parametrize(("case", "padding"), ASKED)
def test_as_sentence_transformers_itself_answers(
    case: str, padding: str, references: dict[str, np.ndarray], tmp_path: Path
) -> None:
    values = drawn()
    modules = read_sentence_modules(_folder_of(CASES[case], values, tmp_path))
    expected = references[expected_key(case, padding)]
    given = sentence_embeddings(values["tokens"], values[padding], modules)
    np.testing.assert_allclose(given, expected, atol=2e-6)
    model = SentenceModel(_Tokens(), modules)
    with torch.no_grad():
        found = model(tokens=torch.from_numpy(values["tokens"]), attention_mask=torch.from_numpy(values[padding]))
    np.testing.assert_allclose(found["sentence_embedding"].numpy(), expected, atol=2e-6)


def _folder_of(case: dict[str, Any], values: dict[str, np.ndarray], folder: Path) -> Path:
    """Write the folder whose modules a case has the configs of."""
    kinds = ["MLMTransformer", "SpladePooling"] if "splade" in case else ["Transformer", "Pooling"]
    kinds += ["Dense"] * ("dense" in case) + ["Normalize"] * bool(case.get("normalize"))
    places = ["", *(f"{number}_{kind}" for number, kind in enumerate(kinds[1:], start=1))]
    entries = [{"type": f"a.b.{kind}", "path": place} for kind, place in zip(kinds, places, strict=True)]
    (folder / "modules.json").write_text(json.dumps(entries))
    for place in places[1:]:
        (folder / place).mkdir()
    (folder / places[1] / "config.json").write_text(json.dumps(case.get("splade", case.get("pooling"))))
    if "dense" in case:
        (folder / "2_Dense/config.json").write_text(json.dumps({"activation_function": case["dense"]}))
        weights = {f"linear.{name}": values[name] for name in ("weight", "bias")}
        save_file(weights, folder / "2_Dense/model.safetensors")
    if "truncate_dim" in case:
        settings = {"prompts": {}, "truncate_dim": case["truncate_dim"]}
        (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    return folder


def test_the_task_that_a_folder_is_for(tmp_path: Path) -> None:
    assert bare_task(tmp_path) == ""
    _folder_of(CASES["mean"], {}, tmp_path)
    assert bare_task(tmp_path) == "default"
    (tmp_path / "splade").mkdir()
    assert bare_task(_folder_of(CASES["splade max of relu"], {}, tmp_path / "splade")) == "masked-lm"
    (tmp_path / "modules.json").write_text("[]")
    assert bare_task(tmp_path) == ""
    (tmp_path / "modules.json").write_text("{")
    assert bare_task(tmp_path) == ""


def _change(folder: Path, name: str, **values: Any) -> None:
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_what_no_graph_can_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no modules\.json"):
        read_sentence_modules(tmp_path)
    write_modules(tmp_path, ("mean",))
    _change(tmp_path, "1_Pooling/config.json", include_prompt=False)
    settings = tmp_path / "config_sentence_transformers.json"
    settings.write_text(json.dumps({"prompts": {"query": "", "document": ""}}))
    assert read_sentence_modules(tmp_path).pooling == ("mean",)
    settings.write_text(json.dumps({"prompts": {"query": "find: ", "document": ""}}))
    with pytest.raises(UnsupportedError, match=r"the folder has prompts \(query\)"):
        read_sentence_modules(tmp_path)
    settings.write_text(json.dumps({"truncate_dim": "8"}))
    with pytest.raises(CheckpointError, match="`truncate_dim` is '8'"):
        read_sentence_modules(tmp_path)
    settings.unlink()
    _change(tmp_path, "1_Pooling/config.json", pooling_mode_median_tokens=True)
    with pytest.raises(UnsupportedError, match="pooling is mean, pooling_mode_median_tokens"):
        read_sentence_modules(tmp_path)
    _change(tmp_path, "1_Pooling/config.json", include_prompt=True, pooling_mode="attention")
    with pytest.raises(UnsupportedError, match="pooling is attention"):
        read_sentence_modules(tmp_path)
    modules = json.loads((tmp_path / "modules.json").read_text())
    (tmp_path / "modules.json").write_text(json.dumps([modules[0], {"type": "a.WordWeights", "path": "3"}]))
    with pytest.raises(UnsupportedError, match="modules are Transformer, WordWeights"):
        read_sentence_modules(tmp_path)
    (tmp_path / "modules.json").write_text(json.dumps([{"type": "a.Transformer", "path": "../elsewhere"}]))
    with pytest.raises(CheckpointError, match="is no list of modules"):
        read_sentence_modules(tmp_path)


@pytest.mark.parametrize("place", ["1_Pooling", "1_Pooling/config.json", "2_Dense/model.safetensors", "modules.json"])
def test_links_that_lead_out_of_the_folder_are_refused(tmp_path: Path, place: str) -> None:
    folder = _with_dense(tmp_path / "checkpoint")
    assert read_sentence_modules(folder).dense
    outside = tmp_path / "outside"
    (folder / place).rename(outside)
    (folder / place).symlink_to(outside)
    with pytest.raises(CheckpointError, match="link that leads out of the folder"):
        read_sentence_modules(folder)


@pytest.mark.parametrize("place", ["modules.json", "1_Pooling/config.json", "config_sentence_transformers.json"])
def test_files_that_are_too_large_are_not_read(tmp_path: Path, place: str) -> None:
    folder = _with_dense(tmp_path / "checkpoint")
    (folder / place).touch()
    os.truncate(folder / place, 2**31)
    with pytest.raises(CheckpointError, match="the limit for such a file"):
        read_sentence_modules(folder)


def _with_dense(folder: Path) -> Path:
    folder.mkdir()
    write_modules(folder, ("mean",), dense=(3, 5))
    return folder


def test_modules_of_an_export_have_their_transformer_at_the_root() -> None:
    given = [{"idx": 0, "path": "0_Transformer", "type": "a"}, {"idx": 1, "path": "1_Pooling", "type": "b"}]
    found = json.loads(at_the_root(json.dumps(given).encode()))
    assert found == [{**given[0], "path": ""}, given[1]]


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"{}", b"null", b"0", b'"x"', b"[0]", b"[{}]", b"[null]", b"\xff", b"[" * 100_000),
        *(b'{"0": 1}', b'[ {"path": ""}, {"path": "1_Pooling"} ]', b'[{"path": null}]'),
    ],
    ids=range(15),
)
def test_modules_that_are_damaged_or_at_the_root_stay_as_they_are(content: bytes) -> None:
    assert at_the_root(content) == content
