"""Encoder-decoders: graphs as Optimum loads them, driven together; and what of them has to be refused."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from transformers import AutoConfig

from broken import before_all, constant, replace_uses
from hfexport.backends.base import Artifact, ExportJob
from hfexport.backends.onnx.backend import OnnxBackend
from hfexport.backends.torchscript.backend import TorchScriptBackend
from hfexport.export_config import ExportConfig
from hfexport.export_config.builtin import config_class_for
from hfexport.export_config.probes import validation_probes
from hfexport.export_config.tasks import TASKS
from hfexport.modeling.load import load_model
from hfexport.runtime import load_torchscript
from hfexport.validation import ArtifactVerdict, Reference, all_of, resolve_tolerance, start_references, validate
from hfexport.validation.reference.seq2seq import generate
from tiny import make_checkpoint
from tiny.seq2seq import FEWER_LAYERS, ONE_LAYER

METADATA = {"producer": "hfexport", "version": "0", "source": "tiny", "task": "any"}


@dataclass
class Parts:
    """A tiny BART in three graphs, with their references and ONNX artifacts."""

    checkpoint: Path
    configs: tuple[ExportConfig, ...]
    references: tuple[Reference, ...]
    artifacts: list[Artifact]

    def judge(self, artifact: Artifact, folder: Path) -> ArtifactVerdict:
        """The verdict on the decoder with past."""
        config, reference = self.configs[-1], self.references[-1]
        tolerance = resolve_tolerance(config, "fp32", None, None)
        others = list(zip(self.artifacts[:-1], self.configs[:-1], strict=True))
        return validate(
            artifact,
            config,
            reference,
            tolerance,
            folder=folder / "run",
            env=os.environ,
            timeout_s=900.0,
            companions=others,
        )


def graphs_of(checkpoint: Path, task: str, layout: Any) -> tuple[ExportConfig, ...]:
    config = AutoConfig.from_pretrained(checkpoint)
    return config_class_for(config.model_type)(config, TASKS[task]).graphs(layout)


def make(name: str, checkpoint: Path, config: ExportConfig, folder: Path) -> Artifact:
    folder.mkdir(exist_ok=True)
    backend = OnnxBackend() if name == "onnx" else TorchScriptBackend()
    return backend.export(ExportJob(checkpoint, config, "fp32", folder, METADATA))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    folder = tmp_path_factory.mktemp("bart")
    checkpoint = make_checkpoint(folder / "checkpoint", "bart", "seq2seq-lm-with-past", **FEWER_LAYERS["bart"])
    configs = graphs_of(checkpoint, "seq2seq-lm-with-past", "split")
    asked = [(config, validation_probes(config)) for config in configs]
    references = start_references(checkpoint, asked, "fp32", folder=folder / "reference", env=os.environ)
    with references[0].worker:
        artifacts = [make("onnx", checkpoint, config, folder / "onnx") for config in configs]
        yield Parts(checkpoint, configs, references, artifacts)


def names(values: Sequence[onnx.ValueInfoProto]) -> list[str]:
    return [value.name for value in values]


def test_files_inputs_and_outputs_are_those_that_optimum_loads(parts: Parts) -> None:
    encoder, decoder, with_past = (onnx.load(artifact.path).graph for artifact in parts.artifacts)
    files = [artifact.path.name for artifact in parts.artifacts]
    assert files == ["encoder_model.onnx", "decoder_model.onnx", "decoder_with_past_model.onnx"]
    assert names(encoder.input) == ["input_ids", "attention_mask"]
    assert names(encoder.output) == ["last_hidden_state"]
    assert names(decoder.input) == ["input_ids", "encoder_attention_mask", "encoder_hidden_states"]
    cache = [f"0.{kind}.{part}" for kind in ("decoder", "encoder") for part in ("key", "value")]
    assert names(decoder.output)[:5] == ["logits", *(f"present.{name}" for name in cache)]
    assert names(with_past.input)[:6] == [
        *("input_ids", "encoder_attention_mask"),
        *(f"past_key_values.{name}" for name in cache),
    ]
    assert names(with_past.output)[:4] == [
        *("logits", "present.0.decoder.key", "present.0.decoder.value", "present.1.decoder.key")
    ]
    axes = [dim.dim_param or dim.dim_value for dim in with_past.output[1].type.tensor_type.shape.dim]
    assert axes == ["batch_size", 4, "past_decoder_sequence + decoder_sequence", 6]


def test_no_graph_carries_the_weights_of_another(parts: Parts) -> None:
    weights = [{tensor.name for tensor in onnx.load(artifact.path).graph.initializer} for artifact in parts.artifacts]
    encoder, decoder, with_past = weights
    assert any(name.startswith("layers.0") for name in encoder) and not any("decoder" in name for name in encoder)
    assert any("decoder.layers.1" in name for name in decoder) and not any("encoder.layers" in name for name in decoder)
    # Keys and values of what the encoder said lie in the cache.
    assert any("encoder_attn.k_proj" in name for name in decoder)
    assert not any("encoder_attn.k_proj" in name or "encoder_attn.v_proj" in name for name in with_past)


def test_right_graphs_pass_and_generate_together(parts: Parts, tmp_path: Path) -> None:
    verdict = parts.judge(parts.artifacts[-1], tmp_path)
    assert verdict.verdict == "passed", verdict.failures
    driven = [result for result in verdict.probes if result.probe.greedy_steps]
    assert [(result.probe.greedy_steps, result.probe.reorders) for result in driven] == [(16, False), (6, True)]
    for result in driven:
        assert [output.name for output in result.outputs][:4] == [
            *("tokens", "logits", "present.0.decoder.key", "present.0.decoder.value")
        ]


def test_the_reference_generates_in_the_models_own_dtype(parts: Parts) -> None:
    config = parts.configs[-1]
    probe = next(probe for probe in validation_probes(config) if probe.greedy_steps)
    model = load_model(parts.checkpoint, config, "fp16")
    answer = generate(model, config, probe.inputs(config, "fp16"), 2)  # type: ignore[arg-type]
    assert {name: array.dtype.name for name, array in answer.items() if "value" not in name and "key" not in name} == {
        **{"tokens": "int64", "logits": "float16"}
    }


def ignore_encoder_mask(model: onnx.ModelProto) -> None:
    replace_uses(model.graph, "encoder_attention_mask", "all_seen")
    one = helper.make_tensor("one", onnx.TensorProto.INT64, [1], [1])
    before_all(
        model.graph,
        helper.make_node("Shape", ["encoder_attention_mask"], ["mask_shape"]),
        helper.make_node("ConstantOfShape", ["mask_shape"], ["all_seen"], value=one),
    )


def scale_cross_cache(model: onnx.ModelProto) -> None:
    name = "past_key_values.1.encoder.value"
    replace_uses(model.graph, name, "scaled")
    before_all(model.graph, constant("factor", np.float32(1.01)), helper.make_node("Mul", [name, "factor"], ["scaled"]))


def mix_rows(model: onnx.ModelProto) -> None:
    """Right as long as all rows are alike: the cache of the first row is taken for all."""
    name = "past_key_values.1.decoder.key"
    replace_uses(model.graph, name, "first_for_all")
    before_all(
        model.graph,
        constant("first", np.array([0])),
        helper.make_node("Gather", [name, "first"], ["first_row"], axis=0),
        helper.make_node("Shape", [name], ["cache_shape"]),
        helper.make_node("Expand", ["first_row", "cache_shape"], ["first_for_all"]),
    )


@pytest.mark.parametrize("edit", [ignore_encoder_mask, scale_cross_cache, mix_rows], ids=lambda edit: edit.__name__)
def test_a_wrong_decoder_fails_in_its_own_probes_and_in_generation(
    edit: Callable[[onnx.ModelProto], None], parts: Parts, tmp_path: Path
) -> None:
    model = onnx.load(parts.artifacts[-1].path)
    edit(model)
    path = tmp_path / "decoder_with_past_model.onnx"
    onnx.save(model, path)
    verdict = parts.judge(Artifact("onnx", path, (path,)), tmp_path)
    assert verdict.verdict == "failed"
    wrong = {bool(result.probe.greedy_steps) for result in verdict.probes if not result.passed}
    assert wrong == {False, True}


def test_an_encoder_of_another_model_shows_in_generation(parts: Parts, tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / "other", "bart", "seq2seq-lm-with-past", seed=1, **FEWER_LAYERS["bart"])
    encoder = make("onnx", other, parts.configs[0], tmp_path / "onnx")
    mixed = Parts(parts.checkpoint, parts.configs, parts.references, [encoder, *parts.artifacts[1:]])
    verdict = mixed.judge(parts.artifacts[-1], tmp_path)
    assert verdict.verdict == "failed"
    assert all(bool(result.probe.greedy_steps) != result.passed for result in verdict.probes)


@pytest.mark.thorough
def test_sums_of_blocks_are_those_of_the_input_that_is_asked(tmp_path: Path) -> None:
    """LongT5's transient-global attention at lengths with no block, some, and many, some of them by the last bit."""
    changes = {"encoder_attention_type": "transient-global"}
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "longt5", "seq2seq-lm", **changes)
    config = graphs_of(checkpoint, "seq2seq-lm", "split")[0]
    (reference,) = start_references(
        checkpoint, [(config, validation_probes(config))], "fp32", folder=tmp_path / "reference", env=os.environ
    )
    with reference.worker:
        artifact = make("onnx", checkpoint, config, tmp_path / "onnx")
        tolerance = resolve_tolerance(config, "fp32", None, None)
        verdict = validate(
            artifact, config, reference, tolerance, folder=tmp_path / "run", env=os.environ, timeout_s=900.0
        )
    assert verdict.verdict == "passed", verdict.failures
    lengths = {result.probe.sizes["encoder_sequence"] for result in verdict.probes}
    assert lengths >= {1, 2, 5, 6, 13, 512}


@pytest.fixture(scope="module")
def merged(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Both decoders of `parts` in one file."""
    _, config = graphs_of(parts.checkpoint, "seq2seq-lm-with-past", "merged")
    return make("onnx", parts.checkpoint, config, tmp_path_factory.mktemp("merged") / "onnx")


def judge_branches(parts: Parts, artifact: Artifact, folder: Path) -> list[ArtifactVerdict]:
    """The verdict on the branch that begins a text, and on the one that goes on."""
    verdicts = []
    made = [(parts.artifacts[0], parts.configs[0])]
    for config, reference in zip(parts.configs[1:], parts.references[1:], strict=True):
        tolerance = resolve_tolerance(config, "fp32", None, None)
        run = folder / config.graph
        verdicts.append(
            validate(
                artifact, config, reference, tolerance, folder=run, env=os.environ, timeout_s=900.0, companions=made
            )
        )
        made.append((artifact, config))
    return verdicts


def test_a_merged_decoder_has_the_names_that_consumers_know_and_each_weight_once(
    parts: Parts, merged: Artifact
) -> None:
    model = onnx.load(merged.path)
    onnx.checker.check_model(model, full_check=True)
    assert merged.path.name == "decoder_model_merged.onnx"
    assert names(model.graph.input)[:4] == [
        *("input_ids", "encoder_attention_mask", "encoder_hidden_states", "past_key_values.0.decoder.key")
    ]
    choice = model.graph.input[-1]
    assert (choice.name, choice.type.tensor_type.elem_type) == ("use_cache_branch", onnx.TensorProto.BOOL)
    assert names(model.graph.output)[:3] == ["logits", "present.0.decoder.key", "present.0.decoder.value"]
    # By this name Transformers.js knows the batch, for the first cache, which is empty; Optimum mistakes its heads.
    empty = next(value for value in model.graph.input if value.name == "past_key_values.0.encoder.key")
    axes = [dim.dim_param or dim.dim_value for dim in empty.type.tensor_type.shape.dim]
    assert axes == ["batch_size", "heads", "past_encoder_sequence", "head_size"]
    (node,) = model.graph.node
    assert node.op_type == "If"
    assert not any(attribute.g.initializer for attribute in node.attribute)
    assert merged.path.stat().st_size < 0.8 * sum(artifact.path.stat().st_size for artifact in parts.artifacts[1:])


def test_both_branches_of_a_merged_decoder_pass_and_generate(parts: Parts, merged: Artifact, tmp_path: Path) -> None:
    begins, goes_on = judge_branches(parts, merged, tmp_path)
    both = all_of([begins, goes_on])
    assert both.verdict == "passed", both.failures
    assert len(both.probes) == len(begins.probes) + len(goes_on.probes)
    assert [result.probe.reorders for result in both.probes if result.probe.greedy_steps] == [False, True]


def swap_branches(node: onnx.NodeProto) -> None:
    then, otherwise = node.attribute[0], node.attribute[1]
    then.name, otherwise.name = otherwise.name, then.name


def scale_first_logits(node: onnx.NodeProto) -> None:
    (begins,) = (attribute.g for attribute in node.attribute if attribute.name == "else_branch")
    (last,) = (made for made in begins.node if "logits" in made.output)
    last.output[:] = ["unscaled"]
    begins.node.extend([constant("more", np.float32(1.01)), helper.make_node("Mul", ["unscaled", "more"], ["logits"])])


def look_at_states(node: onnx.NodeProto) -> None:
    """The branch that goes on adds a sum over no states, which is 0 as long as they are left out."""
    (goes_on,) = (attribute.g for attribute in node.attribute if attribute.name == "then_branch")
    (last,) = (made for made in goes_on.node if "logits" in made.output)
    last.output[:] = ["before"]
    goes_on.node.extend(
        [
            helper.make_node("ReduceMax", ["encoder_hidden_states"], ["largest"], keepdims=0),
            helper.make_node("Add", ["before", "largest"], ["logits"]),
        ]
    )


@pytest.mark.parametrize(
    ("edit", "wrong"),
    [(swap_branches, (True, True)), (scale_first_logits, (True, True)), (look_at_states, (False, True))],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wrong_branch_fails(
    edit: Callable[[onnx.NodeProto], None],
    wrong: tuple[bool, bool],
    parts: Parts,
    merged: Artifact,
    tmp_path: Path,
) -> None:
    model = onnx.load(merged.path)
    edit(model.graph.node[0])
    path = tmp_path / merged.path.name
    onnx.save(model, path)
    verdicts = judge_branches(parts, replace(merged, path=path, files=(path,)), tmp_path)
    assert tuple(verdict.verdict == "failed" for verdict in verdicts) == wrong
    assert all_of(verdicts).verdict == "failed"


def test_one_graph_computes_the_cross_attention_cache_that_it_is_not_given(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "bart", "seq2seq-lm-with-past", **ONE_LAYER["bart"])
    (config,) = graphs_of(checkpoint, "seq2seq-lm-with-past", "single")
    model = load_torchscript(make("torchscript", checkpoint, config, tmp_path / "torchscript").path)
    (probe, _) = (probe for probe in validation_probes(config) if probe.greedy_steps)
    inputs = probe.inputs(config, "fp32")
    prefill = model(**inputs)
    past = {
        name.replace("present", "past_key_values"): array
        for name, array in prefill.items()
        if name.startswith("present.")
    }
    mask = np.ones((3, 2), np.int64)
    step = model(**{**inputs, "decoder_attention_mask": mask, **{name: array.numpy() for name, array in past.items()}})
    for name, array in prefill.items():
        if ".encoder." in name:
            assert array.shape[2] == inputs["input_ids"].shape[1]
            assert np.array_equal(step[name], array)
    assert not np.allclose(step["logits"], prefill["logits"])
