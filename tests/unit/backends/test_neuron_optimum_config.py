"""config.json of a Neuron artifact, held to the names that optimum-neuron reads and writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig, MarianConfig, ViTConfig, WhisperConfig

from hfexport.backends.base import ExportJob
from hfexport.backends.neuron.artifact import NeuronPart
from hfexport.backends.neuron.compile_log import CompileLog
from hfexport.backends.neuron.optimum_config import compiler_settings, write_config
from hfexport.backends.neuron.options import NeuronOptions, Target
from hfexport.backends.neuron.plan import PartPlan, plan_encoder_decoder, plan_model
from hfexport.export_config import ExportConfig
from hfexport.export_config.builtin import config_class_for
from hfexport.export_config.tasks import TASKS

READ = {
    *("compiler_type", "compiler_version", "inline_weights_to_neff", "dynamic_batch_size", "tensor_parallel_size"),
    *("task", "model_type", "output_hidden_states", "int_dtype", "float_dtype"),
}
"""What optimum-neuron 0.4.3 reads of the section, `_neuron_config_init` and `_from_pretrained` of NeuronTracedModel."""

WRITTEN = {
    *("optlevel", "auto_cast", "auto_cast_type", "disable_fast_relayout", "disable_fallback"),
    "output_attentions",
}
"""What it writes besides, for a person to read: `store_compilation_config`."""

SHAPES = {
    *("batch_size", "text_batch_size", "image_batch_size", "sequence_length", "num_choices", "width", "height"),
    *("image_size", "num_images_per_prompt", "patch_size", "num_channels", "feature_size", "nb_max_frames"),
    *("audio_sequence_length", "visual_seq_length", "point_batch_size", "nb_points_per_image", "num_beams"),
    *("vae_scale_factor", "encoder_hidden_size", "image_encoder_shapes", "rotary_axes_dim"),
}
"""Fields of its InputShapesArguments: another `static_…` is a TypeError."""


def _section(folder: Path, config: ExportConfig, plans: tuple[PartPlan, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    (folder / "config.json").write_text(json.dumps({"model_type": config.config.model_type, "kept": 1}))
    (folder / "made").mkdir()
    parts = tuple(NeuronPart(plan, Path(), Path(), 1, 1, {}, {}, CompileLog()) for plan in plans)
    job = ExportJob(folder, config, "fp32", folder / "made", {})
    path = write_config(job, NeuronOptions("inf1", Path("python")), parts, "1.24.0.0")
    content = json.loads(path.read_text())
    return content, content["neuron"]


def _config(config: Any, task: str) -> ExportConfig:
    return config_class_for(config.model_type)(config, TASKS[task])


def test_a_text_model_has_every_key_and_the_task_in_both_places(tmp_path: Path) -> None:
    config = _config(BertConfig(), "multiple-choice")
    plans = plan_model(config, {"batch": 2, "choice": 3, "sequence": 24}, free_batch=False)
    content, neuron = _section(tmp_path, config, plans)
    assert neuron.keys() >= READ | WRITTEN
    assert content["kept"] == 1 and content["task"] == neuron["task"] == "multiple-choice"
    static = {key: value for key, value in neuron.items() if key.startswith("static_")}
    assert static == {"static_batch_size": 2, "static_num_choices": 3, "static_sequence_length": 24}
    assert neuron["sizes"] == {"model": {"batch": 2, "choice": 3, "sequence": 24}}


def test_an_image_has_all_names_of_its_size(tmp_path: Path) -> None:
    config = _config(ViTConfig(), "image-classification")
    _, neuron = _section(tmp_path, config, plan_model(config, {"batch": 2}, free_batch=False))
    sizes = {"batch_size": 2, "num_channels": 3, "height": 224, "width": 224, "image_size": 224}
    assert {key: neuron[f"static_{key}"] for key in sizes} == sizes


def test_no_axis_is_given_that_it_does_not_know(tmp_path: Path) -> None:
    whisper = _config(WhisperConfig(), "default-with-past").graphs("split")[0]
    marian = _config(MarianConfig(), "seq2seq-lm")
    (single,) = _config(MarianConfig(), "seq2seq-lm").graphs("single")
    both = {"batch": 1, "encoder_sequence": 9, "decoder_sequence": 7}
    cases = (
        (whisper, plan_model(whisper, {"batch": 1}, free_batch=False)),
        (marian, plan_encoder_decoder(marian, batch=2, read=24, written=12, beams=3, free_batch=False)),
        (single, plan_model(single, both, free_batch=False)),
    )
    for number, (config, plans) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        _, neuron = _section(folder, config, plans)
        assert {key.removeprefix("static_") for key in neuron if key.startswith("static_")} <= SHAPES
        assert neuron["sizes"] == {plan.name: plan.held for plan in plans}
    assert neuron["sizes"]["model"]["decoder_sequence"] == 7


@pytest.mark.parametrize(
    ("target", "arguments", "cast", "kind"),
    [
        ("inf1", [], "all", "bf16"),
        ("inf1", ["--fast-math", "none"], None, "bf16"),
        ("inf1", ["--fast-math=none"], None, "bf16"),
        ("inf1", ["--fast-math", "all"], "all", "bf16"),
        ("inf1", ["--fast-math", "fp32-cast-all-fp16"], "all", "fp16"),
        ("inf1", ["--fast-math", "no-fast-relayout", "fp32-cast-matmult"], "matmul", "mixed"),
        ("inf1", ["--fast-math", "fp32-cast-matmult-bf16"], "matmul", "bf16"),
        ("inf2", [], None, "bf16"),
        ("inf2", ["--auto-cast=matmult", "--auto-cast-type=tf32"], "matmul", "tf32"),
        ("inf2", ["--auto-cast", "none"], None, "bf16"),
    ],
)
def test_what_the_compiler_is_told_is_said_in_its_words(
    target: Target, arguments: list[str], cast: str | None, kind: str
) -> None:
    settings = compiler_settings(NeuronOptions(target, Path("python"), tuple(arguments)))
    assert (settings["auto_cast"], settings["auto_cast_type"]) == (cast, kind)
    assert settings["disable_fast_relayout"] is ("no-fast-relayout" in arguments)


def test_the_level_of_optimisation_is_read() -> None:
    def level(*arguments: str) -> str:
        return str(compiler_settings(NeuronOptions("inf2", Path("python"), arguments))["optlevel"])

    assert (level(), level("--optlevel=1"), level("-O3"), level("-O", "1")) == ("2", "1", "3", "1")
