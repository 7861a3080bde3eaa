"""sentence-transformers folders: what is read of them, and that both ways of pooling agree with each other."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from hfexport.checkpoint.sentence import read_sentence_modules
from hfexport.errors import CheckpointError, UnsupportedError
from hfexport.export_config import SentenceModules
from hfexport.export_config.sentence import ACTIVATIONS, POOLING_MODES, Dense
from hfexport.modeling.pooling import SentenceModel
from hfexport.validation.reference.sentence import sentence_embeddings
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
        return SimpleNamespace(last_hidden_state=tokens)


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


def _change(folder: Path, name: str, **values: Any) -> None:
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_what_no_graph_can_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no modules\.json"):
        read_sentence_modules(tmp_path)
    write_modules(tmp_path, ("mean",))
    _change(tmp_path, "1_Pooling/config.json", include_prompt=False)
    with pytest.raises(UnsupportedError, match="prompts are left out"):
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
