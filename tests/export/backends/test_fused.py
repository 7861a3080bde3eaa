"""The fused variant: attention becomes one operator each, answers stay those of the plain graph, and broken ones are refused."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from broken import METADATA, export_config
from hfexport.backends.base import Artifact, ExportJob
from hfexport.backends.onnx.backend import OnnxBackend
from hfexport.backends.onnx.variants.fused import fused_operators
from hfexport.backends.onnx.variants.graph import graphs_of
from hfexport.backends.onnx.variants.make import make_variant
from hfexport.backends.onnx.variants.names import VARIANTS
from hfexport.export_config import ExportConfig
from hfexport.export_config.probes import validation_probes
from hfexport.validation.quality import ModelAnswers, measure_variant, start_model
from hfexport.validation.sessions import BranchSession, Expected, OnnxSession, Session
from tiny import make_checkpoint
from tiny.seq2seq import ONE_LAYER

Edit = Callable[[onnx.NodeProto], None]

ENCODERS = {
    "bert": {"MultiHeadAttention": 2},
    "distilbert": {"MultiHeadAttention": 2},
    "roberta": {"MultiHeadAttention": 2},
    "electra": {"MultiHeadAttention": 2},
}
DECODERS = {
    "llama": {"MultiHeadAttention": 2, "RotaryEmbedding": 4, "SimplifiedLayerNormalization": 5},
    "qwen3": {"MultiHeadAttention": 2, "RotaryEmbedding": 4, "SimplifiedLayerNormalization": 9},
    "gpt2": {"MultiHeadAttention": 2},
}
SEQ2SEQ = {
    "t5": {"MultiHeadAttention": 5, "SimplifiedLayerNormalization": 11},
    "bart": {"MultiHeadAttention": 14},
    "marian": {"MultiHeadAttention": 14},
}
ALWAYS = ("bert", "llama", "t5")
"""One model of each kind; the others are thorough."""


def _cases() -> Iterator[object]:
    kinds = ((ENCODERS, "default"), (DECODERS, "causal-lm-with-past"), (SEQ2SEQ, "seq2seq-lm-with-past"))
    for models, task in kinds:
        for model_type, operators in models.items():
            marks = [] if model_type in ALWAYS else [pytest.mark.thorough]
            yield pytest.param(model_type, task, operators, id=model_type, marks=marks)


@dataclass(frozen=True)
class Export:
    """Plain and fused files of each graph of a model."""

    checkpoint: Path
    plain: list[Artifact]
    fused: list[Artifact]


def export(folder: Path, model_type: str, task: str) -> Export:
    changes = ONE_LAYER[model_type] if model_type == "t5" else {}
    checkpoint = make_checkpoint(folder / "checkpoint", model_type, task, tokenizer=True, **changes)
    plain, fused = [], []
    for config in OnnxBackend().graphs(export_config(checkpoint, task), None):
        artifact = OnnxBackend().export(ExportJob(checkpoint, config, "fp32", folder, METADATA))
        plain.append(artifact)
        path = artifact.path.with_name(f"{artifact.path.stem}_fused.onnx")
        files = make_variant(VARIANTS["fused"], artifact.path, path)
        fused.append(Artifact("onnx", path, tuple(files), config=config))
    return Export(checkpoint, plain, fused)


def sessions(artifact: Artifact) -> Iterator[tuple[ExportConfig, Session]]:
    """Yield each graph of a file with its session."""
    whole = artifact.config
    assert whole is not None
    inputs = [(spec.name, "float32" if spec.dtype == "float" else spec.dtype) for spec in whole.inputs]
    session = OnnxSession(Expected(artifact.path, inputs, [spec.name for spec in whole.outputs]), 0, 1)
    for config in whole.branches:
        names = [[spec.name for spec in specs] for specs in (config.inputs, config.outputs)]
        yield config, session if len(whole.branches) == 1 else BranchSession(session, *names)


@pytest.mark.parametrize(("model_type", "task", "operators"), list(_cases()))
def test_every_attention_is_fused_and_the_answers_stay(
    model_type: str, task: str, operators: dict[str, int], tmp_path: Path
) -> None:
    made = export(tmp_path, model_type, task)
    assert sum((fused_operators(one.path) for one in made.fused), start=Counter()) == operators
    for plain, fused in zip(made.plain, made.fused, strict=True):
        left = {node.op_type for graph in graphs_of(onnx.load(fused.path).graph) for node in graph.node}
        assert "Softmax" not in left
        for (config, expected), (_, session) in zip(sessions(plain), sessions(fused), strict=True):
            probes = [probe for probe in validation_probes(config) if not probe.greedy_steps]
            assert any(probe.padding != "none" for probe in probes)
            for probe in probes:
                inputs = probe.inputs(config, "fp32")
                answers = session.ask(inputs)
                for name, value in expected.ask(inputs).items():
                    np.testing.assert_allclose(
                        answers[name], value, rtol=1e-4, atol=2e-5, err_msg=f"{probe.name} {name}"
                    )


@dataclass(frozen=True)
class Measured:
    """An encoder with its answers on texts."""

    made: Export
    answers: ModelAnswers


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    folder = tmp_path_factory.mktemp("fused")
    made = export(folder, "bert", "default")
    configs = [artifact.config for artifact in made.plain if artifact.config is not None]
    answers = start_model(
        made.checkpoint, configs, tokenizer=made.checkpoint, data=None, folder=folder / "answers", env=os.environ
    )
    with answers.worker:
        yield Measured(made, answers)


def leave(node: onnx.NodeProto) -> None:
    """Change nothing."""


def double_the_scale(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.name == "scale":
            attribute.f *= 2


def drop_the_mask(node: onnx.NodeProto) -> None:
    del node.input[3:]


def halve_the_heads(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.name == "num_heads":
            attribute.i //= 2


@pytest.mark.parametrize("edit", [leave, double_the_scale, drop_the_mask, halve_the_heads])
def test_a_broken_fusion_is_refused(measured: Measured, edit: Edit, tmp_path: Path) -> None:
    model = onnx.load(measured.made.fused[0].path)
    for node in model.graph.node:
        if node.op_type == "MultiHeadAttention":
            edit(node)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    artifact = Artifact("onnx", path, (path,), config=measured.made.fused[0].config)
    quality = measure_variant(
        *([artifact], measured.made.plain, measured.answers, VARIANTS["fused"].limits),
        folder=tmp_path / "run",
        env=os.environ,
        timeout_s=300,
    )
    assert quality.verdict == ("passed" if edit is leave else "failed"), quality
