"""`hfexport.onnx` with models in memory, and its command line: what they refuse, and what they leave alone."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import transformers
from onnx import numpy_helper

from hfexport.errors import InputsError
from hfexport.onnx import (  # type: ignore[attr-defined]
    BertOnnxConfig,
    GPT2OnnxConfig,
    OnnxConfig,
    OnnxSeq2SeqConfigWithPast,
    export,
    validate_model_outputs,
)
from hfexport.onnx.__main__ import main
from tiny import make_checkpoint
from tiny.seq2seq import ONE_LAYER


def _model(folder: Path, model_type: str, task: str, auto_class: str, **changes: int) -> transformers.PreTrainedModel:
    checkpoint = make_checkpoint(folder / "checkpoint", model_type, task, **changes)
    return getattr(transformers, auto_class).from_pretrained(checkpoint)  # type: ignore[no-any-return]


def test_weights_are_those_in_memory_and_a_difference_raises(tmp_path: Path) -> None:
    model = _model(tmp_path, "bert", "token-classification", "AutoModelForTokenClassification")
    with torch.no_grad():
        model.classifier.weight[0] += 1.0  # type: ignore[union-attr]
    config = BertOnnxConfig(model.config, task="token-classification")
    inputs, outputs = export(None, model, config, config.default_onnx_opset, tmp_path / "model.onnx")
    assert inputs == ["input_ids", "attention_mask", "token_type_ids"]
    stored = [numpy_helper.to_array(tensor) for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer]
    wanted = model.classifier.weight.detach().numpy()  # type: ignore[union-attr]
    assert any(array.shape in (wanted.shape, wanted.T.shape) and np.isin(wanted, array).all() for array in stored)
    validate_model_outputs(config, None, model, tmp_path / "model.onnx", outputs, 1e-4)
    with torch.no_grad():
        model.classifier.weight *= 1.01  # type: ignore[union-attr, operator]
    with pytest.raises(ValueError, match="values differ too much"):
        validate_model_outputs(config, None, model, tmp_path / "model.onnx", outputs, 1e-4)
    with pytest.raises(ValueError, match="outputs pooled are not among the model's logits"):
        validate_model_outputs(config, None, model, tmp_path / "model.onnx", ["pooled"], 1e-4)


def test_two_graphs_with_external_data_lie_in_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hfexport.backends.onnx import backend

    monkeypatch.setattr(backend, "SINGLE_FILE_LIMIT_BYTES", 0)
    model = _model(tmp_path, "bert", "token-classification", "AutoModelForTokenClassification")
    config = BertOnnxConfig(model.config, task="token-classification")
    out = tmp_path / "out"
    export(None, model, config, 20, out / "one.onnx")
    before = copy.deepcopy(model)
    with torch.no_grad():
        model.classifier.weight *= 2.0  # type: ignore[union-attr, operator]
    _, outputs = export(None, model, config, 20, out / "other.onnx")
    names = {"one.onnx", "one.onnx_data", "other.onnx", "other.onnx_data"}
    assert {path.name for path in out.iterdir()} == names
    validate_model_outputs(config, None, before, out / "one.onnx", outputs, 1e-4)
    validate_model_outputs(config, None, model, out / "other.onnx", outputs, 1e-4)


def test_a_decoder_in_memory_keeps_its_mode_and_attention(tmp_path: Path) -> None:
    model = _model(tmp_path, "gpt2", "causal-lm", "AutoModelForCausalLM").train()
    attention = model.config._attn_implementation
    config = GPT2OnnxConfig.with_past(model.config, task="causal-lm")
    _, outputs = export(None, model, config, 20, tmp_path / "model.onnx")
    validate_model_outputs(config, None, model, tmp_path / "model.onnx", outputs, 1e-4)
    assert model.training
    assert model.config._attn_implementation == attention


def test_what_a_class_overrides_of_a_known_one_counts(tmp_path: Path) -> None:
    class Mine(BertOnnxConfig):  # type: ignore[misc]
        @property
        def inputs(self) -> Mapping[str, Mapping[int, str]]:
            return {"attention_mask": {0: "rows", 1: "tokens"}, "input_ids": {0: "rows", 1: "tokens"}}

        @property
        def values_override(self) -> Mapping[str, object]:
            return {"problem_type": "regression"}

    model = _model(tmp_path, "bert", "default", "AutoModel")
    assert export(None, model, Mine(model.config), 20, tmp_path / "model.onnx")[0] == ["attention_mask", "input_ids"]
    axes = [dim.dim_param for dim in onnx.load(tmp_path / "model.onnx").graph.input[0].type.tensor_type.shape.dim]
    assert axes == ["rows", "tokens"]
    assert model.config.problem_type is None


def test_an_own_encoder_decoder_in_memory_has_its_cache(tmp_path: Path) -> None:
    class Mine(OnnxSeq2SeqConfigWithPast):
        @property
        def inputs(self) -> Mapping[str, Mapping[int, str]]:
            read, written = {0: "batch", 1: "encoder_sequence"}, {0: "batch", 1: "decoder_sequence"}
            inputs: dict[str, Mapping[int, str]] = {"decoder_input_ids": written, "input_ids": read}
            self.fill_with_past_key_values_(inputs, direction="inputs")
            return inputs

    model = _model(tmp_path, "t5", "seq2seq-lm", "AutoModelForSeq2SeqLM", **ONE_LAYER["t5"])
    config = Mine.with_past(model.config, task="seq2seq-lm")
    inputs, outputs = export(None, model, config, 20, tmp_path / "model.onnx")
    assert inputs[:3] == ["decoder_input_ids", "input_ids", "past_key_values.0.decoder.key"]
    validate_model_outputs(config, None, model, tmp_path / "model.onnx", outputs, 1e-4)


def test_a_class_that_does_not_fit_the_model_is_named(tmp_path: Path) -> None:
    class Mine(OnnxConfig):
        @property
        def inputs(self) -> Mapping[str, Mapping[int, str]]:
            return {"tokens": {0: "batch", 1: "sequence"}}

    model = _model(tmp_path, "bert", "default", "AutoModel")
    with pytest.raises(InputsError, match="Mine: inputs: 'tokens' is nothing that BertModel.forward takes"):
        export(None, model, Mine(model.config), 20, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="opset 11 is out of range"):
        export(None, model, BertOnnxConfig(model.config), 11, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_the_command_line_refuses_in_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "bert", "masked-lm")
    out = tmp_path / "onnx"
    assert main(["--model", str(checkpoint), "--feature", "question-answering", str(out)]) == 1
    assert "needs a head that this checkpoint does not have" in capsys.readouterr().err
    assert main(["--model", str(checkpoint), "--atol", "1e-12", str(out)]) == 1
    said = capsys.readouterr().err
    assert "\t\t-[x] values not close enough (atol: 1e-12)" in said
    assert "Traceback" not in said
    assert list(out.iterdir()) == []
    with pytest.raises(SystemExit) as ended:
        main(["--feature", "default", str(out)])
    assert ended.value.code == 2


def test_an_encoder_decoder_becomes_one_graph_with_its_cache(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "bart", "seq2seq-lm", **ONE_LAYER["bart"])
    assert main(["--model", str(checkpoint), "--feature", "seq2seq-lm-with-past", str(tmp_path / "onnx")]) == 0
    assert "16 greedily decoded tokens are the model's" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "onnx").iterdir()] == ["model.onnx"]
    names = [value.name for value in onnx.load(tmp_path / "onnx/model.onnx").graph.input]
    assert "past_key_values.0.decoder.key" in names
