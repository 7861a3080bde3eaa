"""Adapters are merged into their base by `peft`, and every weight of theirs is accounted for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from adapters import make_adapter
from command import run
from hfexport._internal.messages import plain
from hfexport.checkpoint.adapter import base_of, find_adapter
from hfexport.cli.main import main
from hfexport.errors import CheckpointError, HfexportError, UnsupportedError
from hfexport.modeling.conversion import adapter_worker
from hfexport.modeling.conversion.messages import MergeJob
from tiny import make_checkpoint
from tiny.sentence import write_modules


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("bert") / "base", "bert", "default")


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For a classification that the base has no head for, with five labels."""
    folder = tmp_path_factory.mktemp("adapter") / "lora"
    return make_adapter(folder, base, "AutoModelForSequenceClassification", "SEQ_CLS", model={"num_labels": 5})


def _merge(adapter: Path, base: Path, folder: Path, dtype: str = "fp32") -> Path:
    """In this process; the pipeline does the same in a child."""
    folder.mkdir(exist_ok=True)
    found = find_adapter(adapter)
    assert found is not None
    job = MergeJob(
        adapter=str(adapter),
        adapter_weights=str(found.weights),
        base=str(base),
        base_name=base.name,
        dtype=dtype,
        bare="modules.json" in found.along,
        folder=str(folder / "merged"),
    )
    adapter_worker.run(plain(job))
    return folder / "merged"


def test_the_merged_model_answers_as_base_and_adapter_do(base: Path, adapter: Path, tmp_path: Path) -> None:
    merged = transformers.AutoModelForSequenceClassification.from_pretrained(_merge(adapter, base, tmp_path)).eval()
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(base, num_labels=5)
    both = peft.PeftModel.from_pretrained(plain, str(adapter)).eval()
    ids = torch.tensor([[3, 14, 15, 92, 65, 35]])
    with torch.inference_mode():
        given, wanted = merged(input_ids=ids).logits, both(input_ids=ids).logits
    assert wanted.shape == (1, 5)
    assert torch.allclose(given, wanted, atol=1e-5)
    assert not torch.allclose(given, plain.base_model(input_ids=ids)[0][:, 0, :5], atol=1e-2)


def test_a_decoder_and_its_adapter_in_a_torch_file(tmp_path: Path) -> None:
    base = make_checkpoint(tmp_path / "gpt2", "gpt2", "causal-lm")
    adapter = make_adapter(tmp_path / "lora", base, "AutoModelForCausalLM", "CAUSAL_LM", fan_in_fan_out=True)
    torch.save(load_file(adapter / "adapter_model.safetensors"), adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    merged = transformers.AutoModelForCausalLM.from_pretrained(_merge(adapter, base, tmp_path / "out")).eval()
    torch.save({}, adapter / "unused")
    both = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base), str(adapter)).eval()
    ids = torch.tensor([[3, 14, 15]])
    with torch.inference_mode():
        assert torch.allclose(merged(input_ids=ids).logits, both(input_ids=ids).logits, atol=1e-5)


def test_from_the_command_line(base: Path, adapter: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    code, said = run(output, "--model", adapter, "--base-model", base, "--formats", "onnx")
    assert code == 0, said
    manifest = json.loads((output / "hfexport.json").read_bytes())
    assert manifest["task"] == "sequence-classification"
    assert [entry["path"] for entry in manifest["source"]["files"]] == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert manifest["source"]["adapter"]["kind"] == "LORA"
    assert [entry["path"] for entry in manifest["source"]["adapter"]["base"]["files"]] == [
        "config.json",
        "model.safetensors",
    ]
    assert len(json.loads((output / "config.json").read_bytes())["id2label"]) == 5


def _changed(adapter: Path, folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    weights = load_file(adapter / "adapter_model.safetensors")
    change(weights)
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


LORA = "base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight"
MISFITS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], type[HfexportError], str]] = {
    "missing": (lambda weights: weights.pop(LORA), CheckpointError, f"lacks {LORA}"),
    "left over": (
        lambda weights: weights.update({LORA.replace("layer.0", "layer.9"): weights[LORA].clone()}),
        CheckpointError,
        "layer.9",
    ),
    "misshapen": (lambda weights: weights.update({LORA: torch.ones(4, 7)}), CheckpointError, "cannot be merged"),
    "without its head": (
        lambda weights: [weights.pop(name) for name in list(weights) if "classifier" in name],
        UnsupportedError,
        "needs weights that neither it nor the adapter has: classifier",
    ),
    "not a number": (lambda weights: weights[LORA].fill_(float("nan")), CheckpointError, "cannot be merged"),
}


@pytest.mark.parametrize("kind", MISFITS)
def test_an_adapter_that_does_not_fit_is_refused(kind: str, base: Path, adapter: Path, tmp_path: Path) -> None:
    change, error, message = MISFITS[kind]
    with pytest.raises(error) as caught:
        _merge(_changed(adapter, tmp_path / "changed", change), base, tmp_path / "out")
    assert message in caught.value.message


def test_a_base_of_other_sizes_is_refused(adapter: Path, tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / "other", "bert", "default", hidden_size=40)
    with pytest.raises(CheckpointError, match="cannot be merged into other"):
        _merge(adapter, other, tmp_path / "out")


def test_an_adapter_that_changes_no_weights_is_refused(base: Path, tmp_path: Path) -> None:
    model = transformers.AutoModelForTokenClassification.from_pretrained(base)
    settings = peft.PromptTuningConfig(num_virtual_tokens=3, task_type="TOKEN_CLS")
    peft.get_peft_model(model, settings).save_pretrained(tmp_path / "prompt")
    with pytest.raises(UnsupportedError, match="PROMPT_TUNING cannot be merged"):
        _merge(tmp_path / "prompt", base, tmp_path / "out")


class _Runs:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


def test_nothing_of_an_adapters_pickle_runs(base: Path, adapter: Path, tmp_path: Path) -> None:
    folder = _changed(adapter, tmp_path / "evil", lambda _: None)
    (folder / "adapter_model.safetensors").unlink()
    torch.save({"w": _Runs(tmp_path / "canary")}, folder / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"posix\.system"):
        _merge(folder, base, tmp_path / "out")
    assert not (tmp_path / "canary").exists()


def _config(folder: Path, **values: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **values}))
    (folder / "adapter_model.safetensors").write_bytes(b"")
    return folder


def test_what_an_adapter_says_of_its_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = find_adapter(_config(tmp_path / "a", base_model_name_or_path="owner/name", revision="v2"))
    assert here is not None
    assert base_of(here, None) == ("owner/name", "v2")
    assert base_of(here, "other/name") == ("other/name", "main")
    elsewhere = find_adapter(_config(tmp_path / "a", base_model_name_or_path="/srv/private"))
    assert elsewhere is not None
    with pytest.raises(CheckpointError, match="outside of the working directory"):
        base_of(elsewhere, None)
    assert base_of(elsewhere, "/srv/private") == ("/srv/private", "main")
    nameless = find_adapter(_config(tmp_path / "a", base_model_name_or_path=None))
    assert nameless is not None
    with pytest.raises(CheckpointError, match="names no base"):
        base_of(nameless, None)


def test_an_adapter_that_would_import_a_module_is_refused(tmp_path: Path) -> None:
    folder = _config(tmp_path / "a", base_model_name_or_path="owner/name", megatron_config={"x": 1})
    with pytest.raises(CheckpointError, match="megatron_config"):
        find_adapter(folder)


def test_a_config_without_weights_is_refused(tmp_path: Path) -> None:
    (_config(tmp_path / "a") / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="neither adapter_model.safetensors nor"):
        find_adapter(tmp_path / "a")


def test_a_folder_without_an_adapter_has_none(base: Path) -> None:
    assert find_adapter(base) is None


def _tokens_case(tied: bool, more: int, **settings: Any) -> tuple[bool, int, dict[str, Any]]:
    return tied, more, {"target_modules": "all-linear", **settings}


EMBEDDINGS: dict[str, tuple[bool, int, dict[str, Any]]] = {
    "added tokens": _tokens_case(False, 4, modules_to_save=["embed_tokens", "lm_head"]),
    "added tokens, tied": _tokens_case(True, 4, modules_to_save=["embed_tokens"]),
    "embeddings saved unasked": _tokens_case(False, 4),
    "LoRA of tied embeddings": _tokens_case(True, 0, target_modules=["embed_tokens", "q_proj"]),
    "trainable tokens": _tokens_case(True, 0, trainable_token_indices=[3, 7]),
    "DoRA": _tokens_case(False, 0, use_dora=True),
    "rank-stabilised": _tokens_case(False, 0, use_rslora=True),
    "biases": _tokens_case(False, 0, bias="all"),
    "PiSSA, which changes the base": _tokens_case(False, 0, init_lora_weights="pissa"),
}


@pytest.mark.parametrize("kind", EMBEDDINGS)
def test_kinds_of_lora_are_merged_as_peft_does(kind: str, tmp_path: Path) -> None:
    tied, more, settings = EMBEDDINGS[kind]
    base = make_checkpoint(tmp_path / "base", "llama", "causal-lm")
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    model.config.tie_word_embeddings = tied
    model.lm_head.weight = model.model.embed_tokens.weight if tied else torch.nn.Parameter(model.lm_head.weight.clone())
    model.save_pretrained(base)

    def loaded() -> Any:
        plain = transformers.AutoModelForCausalLM.from_pretrained(base)
        plain.resize_token_embeddings(plain.config.vocab_size + more)
        return plain

    adapted = peft.get_peft_model(loaded(), peft.LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **settings))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += torch.randn(parameter.shape, generator=generator) * 0.05
    adapted.save_pretrained(tmp_path / "lora")
    merged = transformers.AutoModelForCausalLM.from_pretrained(_merge(tmp_path / "lora", base, tmp_path / "out")).eval()
    both = peft.PeftModel.from_pretrained(loaded(), str(tmp_path / "lora")).eval()
    ids = torch.tensor([[3, 7, model.config.vocab_size + more - 1, 9]])
    with torch.inference_mode():
        assert torch.allclose(merged(input_ids=ids).logits, both(input_ids=ids).logits, atol=2e-5)


def test_an_adapter_in_a_sentence_transformers_folder(tmp_path: Path) -> None:
    base = make_checkpoint(tmp_path / "base", "bert", "masked-lm")
    adapter = make_adapter(tmp_path / "lora", base, "AutoModel", None)
    write_modules(adapter, ("mean",), dense=(10, 32))
    output = tmp_path / "out"
    options = ["--model", str(adapter), "--base-model", str(base), "--output", str(output), "--formats", "onnx"]
    assert main([*options, "--task", "sentence-embedding"]) == 0
    assert {path.name for path in output.iterdir()} >= {"modules.json", "1_Pooling", "2_Dense"}
    plain = transformers.AutoModel.from_pretrained(base)
    both = peft.PeftModel.from_pretrained(plain, str(adapter)).eval()
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        tokens = both(input_ids=ids).last_hidden_state.numpy()
    session = onnxruntime.InferenceSession(output / "onnx/model.onnx")
    inputs = {"input_ids": ids.numpy(), "attention_mask": np.ones((1, 3), np.int64)}
    inputs |= {"token_type_ids": np.zeros((1, 3), np.int64)}
    found, vector = session.run(["token_embeddings", "sentence_embedding"], inputs)
    np.testing.assert_allclose(found, tokens, atol=1e-5)
    assert vector.shape == (1, 10)


def test_what_does_not_fit_is_said_in_full(base: Path, adapter: Path, tmp_path: Path) -> None:
    name = LORA.replace("lora_A", "lora_B")
    changed = _changed(adapter, tmp_path / "changed", lambda weights: weights.update({name: torch.ones(7, 4)}))
    with pytest.raises(CheckpointError, match=r"size mismatch for .*torch\.Size\(\[7, 4\]\)"):
        _merge(changed, base, tmp_path / "out")
