"""Every kind of model that runs on Inf1, through the command line: artifact, manifest, report, all checks reached."""

from __future__ import annotations

import json

import pytest

from hfexport.manifest.summary import job_summary
from neuron.conftest import WITH_DEVICE, Exporter
from tiny.sentence import write_modules

KINDS = [
    ("bert", "sequence-classification", 0.9),
    ("distilbert", "question-answering", 0.9),
    ("roberta", "token-classification", 0.9),
    ("xlm-roberta", "masked-lm", 0.9),
    ("camembert", "token-classification", 0.9),
    ("albert", "masked-lm", 0.9),
    ("electra", "multiple-choice", 0.9),
    ("mobilebert", "question-answering", 0.9),
    ("convbert", "question-answering", 0.9),
    ("xlm", "sequence-classification", 0.8),
    ("flaubert", "sequence-classification", 0.9),
    ("squeezebert", "default", 0.9),
    ("roformer", "default", 0.9),
    ("rembert", "default", 0.9),
    ("data2vec-text", "default", 0.9),
    ("layoutlm", "default", 0.8),
    ("mpnet", "auto", 0.9),  # described by no file: its interface is inferred
    ("gpt2", "causal-lm-with-past", 0.8),
    ("vit", "image-classification", 0.9),
    ("beit", "image-classification", 0.9),
    ("deit", "image-classification", 0.9),
    ("swin", "image-classification", 0.9),  # of its tables of indices newer checkpoints store none
    ("swinv2", "image-classification", 0.9),
    ("convnext", "image-classification", 0.9),
    ("resnet", "default", 0.9),
    ("marian", "default", 0.9),  # the encoder alone
    ("t5", "default-with-past", 0.9),  # the same
    ("whisper", "default-with-past", 0.9),  # the same, of sound
]
"""Model type, task, and a share that the stand-in compiles of so small a model."""


@pytest.mark.parametrize(("model_type", "task", "share"), KINDS)
def test_a_kind_is_exported_and_proved(exporter: Exporter, model_type: str, task: str, share: float) -> None:
    checkpoint = exporter.checkpoint(model_type, task)
    done = exporter.run(
        checkpoint, "--task", task, "--batch-size", "2", f"--neuron-min-compiled={share}", stand_in=WITH_DEVICE
    )
    assert done.code == 0, done.said
    assert done.manifest["verdict"] == done.artifact["validation"]["verdict"] == "passed"
    assert {name: verdict for name, (verdict, _) in done.checks.items()} == {
        "environment": "passed",
        "trace": "passed",
        "compiled": "passed",
        "device": "passed",
    }
    assert done.artifact["path"] == "neuron/model.neuron"
    assert [file["path"] for file in done.artifact["files"]] == [
        "neuron/model.neuron",
        "neuron/config.json",
        "neuron/hfexport_neuron/__init__.py",
        "neuron/hfexport_neuron/shapes.py",
        "neuron/compile.log",
    ]
    assert set(done.files) >= {file["path"] for file in done.artifact["files"]}
    (part,) = done.artifact["details"]["parts"]
    assert part["subgraphs"] > 0 and part["compiled_share"] >= share
    if model_type in ("marian", "t5", "whisper"):
        inputs = ["input_features"] if model_type == "whisper" else ["input_ids", "attention_mask"]
        assert (part["name"], part["inputs"]) == ("encoder", inputs)
        assert part["outputs"] == ["last_hidden_state"] and "only the encoder of this encoder-decoder" in done.said
    assert "the compiled artifact ran on a Neuron device" in job_summary(done.manifest)


def test_what_the_compiler_was_told_stands_in_the_config(exporter: Exporter) -> None:
    checkpoint = exporter.checkpoint("bert", "masked-lm")
    options = ("--batch-size", "3", "--validate", "off")
    done = exporter.run(checkpoint, *options, stand_in="--fast-math none")
    content = json.loads((done.folder / "neuron" / "config.json").read_text())
    assert content["model_type"] == "bert" and content["vocab_size"] == 101
    neuron = content["neuron"]
    assert (neuron["compiler_type"], neuron["compiler_version"]) == ("neuron-cc", "1.24.0.0")
    assert neuron["input_names"] == ["input_ids", "attention_mask", "token_type_ids"]
    assert (neuron["output_names"], neuron["task"]) == (["logits"], "fill-mask")
    assert (neuron["compiler_args"], neuron["auto_cast"]) == (["--fast-math", "none"], None)
    assert done.artifact["fixed_sizes"] == {"batch": 3, "sequence": 24}


@pytest.mark.parametrize(
    ("model_type", "saved_by", "modes", "size"),
    [("bert", None, ("cls", "mean", "weightedmean"), 96), ("t5", "T5EncoderModel", ("max",), 24)],
)
def test_a_sentence_transformers_folder_is_one_graph_with_its_pooling(
    exporter: Exporter, model_type: str, saved_by: str | None, modes: tuple[str, ...], size: int
) -> None:
    checkpoint = exporter.checkpoint(model_type, "default", saved_by=saved_by)
    write_modules(checkpoint, modes, dense=(10, size))
    done = exporter.run(checkpoint, "--task", "sentence-embedding", "--batch-size", "2", stand_in=WITH_DEVICE)
    assert done.code == 0, done.said
    assert {verdict for verdict, _ in done.checks.values()} == {"passed"}
    assert [entry["name"] for entry in done.artifact["outputs"]] == ["token_embeddings", "sentence_embedding"]


def test_a_dynamic_batch_is_asked_at_another_batch_too(exporter: Exporter) -> None:
    checkpoint = exporter.checkpoint("distilbert", "sequence-classification")
    done = exporter.run(checkpoint, "--neuron-dynamic-batch-size", "true", stand_in=WITH_DEVICE)
    assert done.code == 0, done.said
    assert done.artifact["fixed_sizes"] == {"sequence": 24}
    batches = {probe["sizes"]["batch"] for probe in done.artifact["validation"]["probes"]}
    assert batches == {1, 3}


def test_a_model_without_padding_takes_one_text_at_its_whole_length(exporter: Exporter) -> None:
    checkpoint = exporter.checkpoint("gpt2", "sequence-classification", pad_token_id=None)
    options = ("--task", "sequence-classification", "--neuron-min-compiled", "0.8", "--batch-size", "2")
    done = exporter.run(checkpoint, *options, "--neuron-dynamic-batch-size", "true", stand_in=WITH_DEVICE)
    assert done.code == 0, done.said
    assert "batch 2 is more than the model supports" in done.said and "supports no other batch" in done.said
    assert done.artifact["fixed_sizes"] == {"batch": 1, "sequence": 24}


def test_an_encoder_decoder_without_a_head_can_be_one_graph(exporter: Exporter) -> None:
    checkpoint = exporter.checkpoint("bart", "default")
    done = exporter.run(checkpoint, "--task", "default", "--layout", "single", "--neuron-min-compiled", "0.8")
    assert done.code == 0, done.said
    assert {"input_ids", "decoder_input_ids"} <= {entry["name"] for entry in done.artifact["inputs"]}


@pytest.mark.parametrize("model_type", ["marian", "t5", "bart"])
def test_an_encoder_decoder_writes_what_the_model_writes(exporter: Exporter, model_type: str) -> None:
    checkpoint = exporter.checkpoint(model_type, "seq2seq-lm")
    options = ("--batch-size", "2", "--neuron-decoder-length", "12", "--neuron-beams", "3")
    done = exporter.run(checkpoint, *options, stand_in=WITH_DEVICE)
    assert done.code == 0, done.said
    assert {verdict for verdict, _ in done.checks.values()} == {"passed"}
    assert done.checks["generation"][1].endswith("as `generate` writes, with 1 and 3 beams")
    assert done.artifact["fixed_sizes"] == {"batch": 6, "encoder_sequence": 24, "decoder_sequence": 12}
    names = [part["name"] for part in done.artifact["details"]["parts"]]
    assert names == ["encoder", "decoder"]
    assert {"neuron/encoder/model.neuron", "neuron/decoder/model.neuron"} <= set(done.files)


OWN_CLASS = """
from hfexport.onnx import OnnxConfig

class Mine(OnnxConfig):
    values_override = {"hidden_act": "relu"}

    @property
    def inputs(self):
        return {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask", "token_type_ids")}
"""


def test_a_class_of_ones_own_has_its_values_in_the_model_there_too(exporter: Exporter) -> None:
    checkpoint = exporter.checkpoint("bert", "sequence-classification")
    own = exporter.folder / "own.py"
    own.write_text(OWN_CLASS)
    done = exporter.run(checkpoint, "--export-config", f"{own}:Mine", stand_in=WITH_DEVICE)
    assert done.code == 0, done.said
    assert "hidden_act 'relu' in its config" in done.said
    assert {verdict for verdict, _ in done.checks.values()} == {"passed"}


def test_formats_go_together_in_any_order(exporter: Exporter) -> None:
    checkpoint = exporter.checkpoint("distilbert", "masked-lm")
    done = exporter.run(checkpoint, "--formats", "neuron")  # the same again is no contradiction
    both = exporter.folder / "both"
    assert done.code == 0
    from hfexport.cli.main import main

    argv = ["--model", str(checkpoint), "--formats", "neuron,torchscript", "--output", str(both)]
    assert main([*argv, "--neuron-python", str(exporter.python)]) == 0
    manifest = json.loads((both / "hfexport.json").read_text())
    verdicts = {artifact["format"]: artifact["validation"]["verdict"] for artifact in manifest["artifacts"]}
    assert (manifest["verdict"], verdicts) == ("incomplete", {"neuron": "incomplete", "torchscript": "passed"})
