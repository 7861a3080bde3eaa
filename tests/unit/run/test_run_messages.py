"""Jobs of the exporting process: the child reads what the parent wrote, and rejects anything else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoConfig

from hfexport._internal.messages import plain, read
from hfexport.errors import InternalError
from hfexport.export_config import LAYOUTS, ExportConfig
from hfexport.export_config.builtin import config_class_for
from hfexport.export_config.described import DescribedConfig, describe_config
from hfexport.export_config.probes import validation_probes
from hfexport.export_config.tasks import TASKS
from hfexport.hub.snapshot import HubModel
from hfexport.hub.source import Fetched, Source
from hfexport.manifest.entries import new_manifest
from hfexport.run.inputs import Inputs, recorded
from hfexport.run.messages import (
    DescribedGraph,
    DescribingJob,
    Description,
    ExportSubject,
    IsolatedJob,
    VerifySubject,
)
from hfexport.validation.reference.start import describe_references

INPUTS = Inputs(
    formats=("onnx", "neuron"),
    variants=("fp16", "q8"),
    fixed={"batch": 1, "sequence": 16},
    atol=1e-4,
    layout="single",
    allow_unused=("pooler",),
    opset=20,
)

MANIFEST = new_manifest(recorded(INPUTS), "2026-01-02T03:04:05Z")


def fetched() -> Fetched:
    model = HubModel("org/tiny", "main", "a" * 40, "")
    base = Fetched(Source("base", Path("/base")), Path("/base"), {})
    return Fetched(Source("org/tiny", Path("/x"), model), Path("/x/y"), {Path("/x/y/config.json"): "b" * 64}, base)


def job(subject: ExportSubject | VerifySubject) -> IsolatedJob:
    places = {"staging": "/staging", "directory": "/", "events": "/events"}
    return IsolatedJob(subject=subject, inputs=INPUTS, fetched=fetched().to_message(), hidden=("/home",), **places)


@pytest.mark.parametrize(
    "subject",
    [ExportSubject(manifest=MANIFEST), VerifySubject(name="out", folder="/out", manifest=MANIFEST)],
)
def test_a_job_is_read_as_it_was_written(subject: ExportSubject | VerifySubject) -> None:
    written = json.loads(json.dumps(plain(job(subject))))
    found = read(written, IsolatedJob)
    assert found == job(subject)
    assert found.inputs == INPUTS
    assert Fetched.from_message(found.fetched) == fetched()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden": "/home"}, r"Expected `array`, got `str` - at `\$.hidden`"),
        ({"token": "hf_x"}, "unknown field `token`"),
        ({"subject": {"type": "delete"}}, "Invalid value 'delete'"),
        ({"inputs": {"formats": "onnx"}}, r"Expected `array`, got `str` - at `\$.inputs.formats`"),
        ({"fetched": None}, r"Expected `object`, got `null` - at `\$.fetched`"),
        ({"subject": {"type": "export", "manifest": {}}}, r"missing required field .* at `\$.subject.manifest`"),
        (
            {"subject": {"type": "export", "manifest": {**MANIFEST, "verdict": "good"}}},
            r"Invalid enum value 'good' - at `\$.subject.manifest.verdict`",
        ),
    ],
)
def test_another_job_is_refused(change: dict[str, object], said: str) -> None:
    written = plain(job(ExportSubject(manifest=MANIFEST)))
    with pytest.raises(InternalError, match=said):
        read({**written, **change}, IsolatedJob)


def test_a_description_without_its_folder_is_refused() -> None:
    values = plain(DescribingJob(folder="/x", inputs=INPUTS, staging="/s", answers="/a", threads=1))
    assert read(values, DescribingJob).inputs == INPUTS
    del values["folder"]
    with pytest.raises(InternalError, match="missing required field `folder`"):
        read(values, DescribingJob)


def graphs(model_type: str, task: str) -> list[ExportConfig]:
    """Every graph of an architecture, in any layout."""
    config = config_class_for(model_type)(AutoConfig.for_model(model_type), TASKS[task])
    return [graph for layout in LAYOUTS for graph in config.graphs(layout)]


def description(configs: list[ExportConfig]) -> Description:
    asked = [(config, validation_probes(config)) for config in configs]
    return Description(
        notes=(("warn", "a warning"),),
        dtype="fp32",
        unused=("pooler.weight",),
        reference=describe_references(Path("/c"), asked, "fp32", folder=Path("/a"), threads=1),
        graphs=tuple(
            DescribedGraph(format="onnx", key="0" * 64, config=describe_config(config, "fp32")) for config in configs
        ),
    )


@pytest.mark.parametrize(
    ("model_type", "task"),
    [("bert", "masked-lm"), ("qwen3", "causal-lm-with-past"), ("t5", "seq2seq-lm-with-past"), ("vit", "default")],
)
def test_a_description_is_read_as_it_was_written(model_type: str, task: str) -> None:
    configs = graphs(model_type, task)
    written = description(configs)
    found = read(json.loads(json.dumps(plain(written))), Description)
    assert found == written
    for config, graph in zip(configs, found.graphs, strict=True):
        restored = DescribedConfig(graph.config)
        for name in ("graph", "origin", "task", "recipe", "inputs", "outputs", "limits", "thresholds", "trace_sizes"):
            assert getattr(restored, name) == getattr(config, name), name
        assert restored.tolerance("fp32") == config.tolerance("fp32")
        assert [branch.graph for branch in restored.branches] == [branch.graph for branch in config.branches]
        assert restored.prompt.inputs == config.prompt.inputs


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tolerance": {"atol": -1.0, "rtol": 0.0}}, "atol is -1.0; it must be a finite number"),
        ({"limits": {"sequence": {"minimum": "one"}}}, r"Expected `int`, got `str` - at .*limits"),
        ({"inputs": [{"name": "x", "axes": [], "dtype": "int8", "role": "output"}]}, "Invalid enum value 'int8'"),
        ({"branches": [{}]}, r"missing required field `graph` - at .*branches\[0\]"),
    ],
)
def test_another_description_is_refused(change: dict[str, object], said: str) -> None:
    values = plain(description(graphs("bert", "default")[:1]))
    values["graphs"][0]["config"] |= change
    with pytest.raises(InternalError, match=said):
        read(values, Description)
