"""`hfexport.onnx`: a class for every architecture, features as they are supported, and the three base classes."""

from __future__ import annotations

import logging
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, DistilBertConfig

import hfexport.onnx
from hfexport.errors import UnsupportedError
from hfexport.export_config.builtin import known_architectures
from hfexport.export_config.tasks import TASKS
from hfexport.onnx import FeaturesManager, OnnxConfig, OnnxConfigWithPast, OnnxSeq2SeqConfigWithPast
from hfexport.onnx.__main__ import main
from hfexport.onnx.convert import validate_model_outputs
from hfexport.onnx.known import onnx_config_classes
from hfexport.onnx.log import log_outputs


def test_the_base_classes_load_no_torch() -> None:
    code = "import sys, hfexport.onnx; print([name for name in ('torch', 'transformers') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("model_type", [name for name in known_architectures() if name in onnx_config_classes()])
def test_every_architecture_has_its_class(model_type: str) -> None:
    found = onnx_config_classes()[model_type]
    assert getattr(hfexport.onnx, found.__name__) in onnx_config_classes().values()
    for feature, make in FeaturesManager.get_supported_features_for_model_type(model_type).items():
        made = make(AutoConfig.for_model(model_type))
        assert made.task == FeaturesManager.feature_to_task(feature)
        assert made.full_task is TASKS[feature]


def test_names_are_those_of_transformers_onnx() -> None:
    names = {found.__name__ for found in onnx_config_classes().values()}
    assert names >= {
        "BertOnnxConfig",
        "DistilBertOnnxConfig",
        "GPT2OnnxConfig",
        "XLMRobertaOnnxConfig",
        "ViTOnnxConfig",
    }


def test_a_name_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(AttributeError, match=r"no NoSuchOnnxConfig; it has .*BertOnnxConfig"):
        _ = hfexport.onnx.NoSuchOnnxConfig


def test_a_decoder_class_has_its_cache() -> None:
    from hfexport.onnx import GPT2OnnxConfig  # type: ignore[attr-defined]

    config = GPT2OnnxConfig.with_past(AutoConfig.for_model("gpt2", n_layer=1), task="causal-lm")
    assert isinstance(config, OnnxConfigWithPast)
    assert config.inputs["past_key_values.0.key"] == {0: "batch", 2: "past_sequence"}
    assert config.outputs["present.0.value"] == {0: "batch", 2: "past_sequence + sequence"}


def test_features_of_an_architecture_that_is_not_known() -> None:
    with pytest.raises(KeyError, match="mamba9 is not supported yet"):
        FeaturesManager.get_supported_features_for_model_type("mamba9")
    with pytest.raises(ValueError, match="doesn't support feature masked-lm"):
        FeaturesManager.get_config("gpt2", "masked-lm")


def test_a_task_that_is_not_known() -> None:
    class Mine(OnnxConfig):
        @property
        def inputs(self) -> Mapping[str, Mapping[int, str]]:
            return {"input_ids": {0: "batch", 1: "sequence"}}

    with pytest.raises(UnsupportedError, match="'guessing' is not known"):
        Mine(DistilBertConfig(), task="guessing")


class _Seq2Seq(OnnxSeq2SeqConfigWithPast):
    @property
    def inputs(self) -> Mapping[str, Mapping[int, str]]:
        inputs: dict[str, Mapping[int, str]] = {"input_ids": {0: "batch", 1: "encoder_sequence"}}
        if self.use_past:
            self.fill_with_past_key_values_(inputs, direction="inputs")
        return inputs


def test_an_encoder_decoder_names_its_cache_as_transformers_onnx_did() -> None:
    config: Any = AutoConfig.for_model("bart", encoder_layers=3, decoder_layers=1)
    mine = _Seq2Seq.with_past(config, task="default")
    assert list(mine.inputs)[1:] == [
        *("past_key_values.0.decoder.key", "past_key_values.0.decoder.value"),
        *("past_key_values.0.encoder.key", "past_key_values.0.encoder.value"),
    ]
    assert mine.outputs["last_hidden_state"] == {0: "batch", 1: "decoder_sequence"}
    assert mine.outputs["present.0.decoder.key"] == {0: "batch", 2: "past_decoder_sequence + sequence"}
    assert mine.outputs["present.0.encoder.key"] == {0: "batch", 2: "past_encoder_sequence"}
    with pytest.raises(ValueError, match="sideways"):
        mine.fill_with_past_key_values_({}, direction="sideways")


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1e999", "x"])
def test_a_tolerance_that_finds_nothing_wrong_is_refused(
    value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--model", str(tmp_path), f"--atol={value}", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert "must be a number of at least 0" in capsys.readouterr().err


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_the_same_for_the_function(value: float, tmp_path: Path) -> None:
    for tolerances in ({"atol": value}, {"atol": 1e-5, "rtol": value}):
        with pytest.raises(ValueError, match="must be a finite number"):
            validate_model_outputs(None, None, None, tmp_path, [], **tolerances)  # type: ignore[arg-type]


def test_the_log_names_the_tolerance_that_was_asked(caplog: pytest.LogCaptureFixture) -> None:
    result = {"name": "logits", "shape": [2, 8], "max_abs": 1e-7, "problem": ""}
    probe = {"greedy_steps": 0, "problem": "", "verdict": "passed", "outputs": [result]}
    validation = {"reason": "", "tolerance": {"atol": 1e-4, "rtol": 0.0}, "probes": [probe]}
    for asked, said in ((1e-4, "atol: 0.0001"), (None, "atol: 1e-05")):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            log_outputs(logging.getLogger("hfexport.onnx"), validation, ["logits"], asked)
        assert caplog.messages[-1] == f"\t\t-[✓] all values close ({said})"
