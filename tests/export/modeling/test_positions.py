"""Numbers of positions: those of built-in export configs hold, and wrong ones are measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from hfexport.cli.main import main
from hfexport.export_config import ExportConfig
from hfexport.export_config.builtin import known_architectures, restore_config
from hfexport.export_config.tasks import TASKS
from hfexport.modeling.inferred.dry_run import DryModel
from hfexport.modeling.inferred.measure import position_limit, thresholds
from hfexport.modeling.inferred.positions import measured_positions
from hfexport.modeling.load import empty_model, load_model
from tiny import make_checkpoint

ANY_LENGTH = ("deberta", "deberta-v2", "llama", "qwen3", "m2m_100", "moonshine")
"""Models whose number of positions is that of their training: they take longer texts too."""

NAMES = ("max_positions", "max_encoder_positions", "max_decoder_positions")

QUICK = ("roberta", "gpt2", "llama", "bart")
"""A table with a padding row, position ids, rotary positions, an encoder-decoder."""

_ENCODER = {"model_type": "vit", "image_size": 16, "patch_size": 8, "num_hidden_layers": 1}
_SIZES = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48}
_SPECIAL = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}


def _declared(config: ExportConfig) -> dict[str, int]:
    return {name: size for name in NAMES if (size := getattr(config, name, None))}


def _cases() -> list[Any]:
    cases = []
    for model_type, kind in known_architectures().items():
        if any(hasattr(kind, name) for name in NAMES) and model_type not in ("t5", "mt5", "umt5", "longt5", "bloom"):
            marks = () if model_type in QUICK else pytest.mark.thorough
            cases.append(pytest.param(model_type, marks=marks))
    return cases


@pytest.mark.parametrize("model_type", _cases())
def test_the_number_of_positions_is_that_of_the_model(model_type: str, tmp_path: Path) -> None:
    kind = known_architectures()[model_type]
    task = next((task for task in kind.tasks if task.endswith("lm-with-past")), kind.tasks[0])
    checkpoint = make_checkpoint(tmp_path / "checkpoint", model_type, task)
    model_config = transformers.AutoConfig.from_pretrained(checkpoint)
    config: ExportConfig = kind(model_config, TASKS[task])
    declared = _declared(config)
    if model_type == "whisper":  # another length of sound would be another shape of its only input
        del declared["max_encoder_positions"]
    dry = DryModel(lambda mode: empty_model(config, "fp32", mode), lambda: load_model(checkpoint, config, "fp32"))
    assert declared
    assert measured_positions(config, dry) == {}
    wrong = config.with_measured_positions({name: size + 3 for name, size in declared.items()})
    assert measured_positions(wrong, dry) == ({} if model_type in ANY_LENGTH else declared)


def test_measured_positions_are_limits_in_every_process(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "bart", "seq2seq-lm-with-past")
    model_config = transformers.AutoConfig.from_pretrained(checkpoint)
    config = known_architectures()["bart"](model_config, TASKS["seq2seq-lm-with-past"])
    shorter = config.with_measured_positions({"max_decoder_positions": 10})
    assert config.limits["decoder_sequence"].maximum == 64
    for graph in (*shorter.graphs("merged")[1].branches, shorter.graphs("single")[0]):
        restored = restore_config(json.loads(json.dumps(dict(graph.recipe))), model_config)
        assert restored.limits["decoder_sequence"].maximum == 10
        assert restored.limits == graph.limits


def test_a_model_with_fewer_positions_than_its_config_says_is_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Positions of this decoder start after the padding id, so that 40 rows are 38 positions.
    decoder = {"model_type": "roberta-prelayernorm", "vocab_size": 100, "num_hidden_layers": 1, **_SIZES, **_SPECIAL}
    decoder |= {"max_position_embeddings": 40, "is_decoder": True, "add_cross_attention": True}
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(
        "vision-encoder-decoder",
        encoder={**_ENCODER, **_SIZES},
        decoder=decoder,
        decoder_start_token_id=0,
        pad_token_id=1,
    )
    checkpoint, output = tmp_path / "checkpoint", tmp_path / "out"
    transformers.VisionEncoderDecoderModel(config).save_pretrained(checkpoint)
    words = [str(checkpoint), "--task", "vision2seq-lm", "--layout", "single", "--formats", "torchscript"]
    assert main([*words, "--output", str(output)]) == 0
    assert "measured: 38 decoder positions" in capsys.readouterr().err
    (artifact,) = json.loads((output / "hfexport.json").read_text())["artifacts"]
    assert artifact["limits"]["decoder_sequence"]["maximum"] == 38
    assert artifact["validation"]["verdict"] == "passed"
    assert main(["verify", str(output), "--model", str(checkpoint)]) == 0


def test_encoder_and_decoder_have_positions_of_their_own(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path, "led", "auto", attention_window=[4, 8])
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(checkpoint)
    assert position_limit(model, model.config, "encoder") == 64
    assert position_limit(model, model.config, "decoder") == 48
    assert position_limit(model, model.config) == 48
    assert thresholds(model.config, "sequence", 64) == {"sequence": 8}
    assert thresholds(model.config, "sequence", 12) == {}
