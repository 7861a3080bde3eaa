"""Jobs and answers between the processes of a validation."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hfexport._internal.messages import plain, read
from hfexport.backends.neuron.messages import GenerateCall
from hfexport.errors import InternalError
from hfexport.export_config.probes import Probe
from hfexport.export_config.recipe import Recipe
from hfexport.modeling.conversion.messages import ConversionAnswer, ConversionJob, MergeJob
from hfexport.validation.messages import (
    Branch,
    GraphFile,
    PaddedReferenceJob,
    ReferenceAnswer,
    ReferenceGraph,
    ReferenceJob,
    RunnerAnswer,
    RunnerJob,
)

GRAPH = GraphFile(
    graph="model",
    path="/a/model.onnx",
    inputs=(("input_ids", "int64"),),
    outputs=("logits",),
    branch=Branch(inputs=("input_ids",), outputs=("logits",)),
)
RECIPE: Recipe = {"model_type": "bert", "task": "default", "trust_remote_code": False}
RUNNER = RunnerJob(
    format="onnx",
    weight_bytes=4,
    threads=1,
    graphs=(GRAPH,),
    greedy_steps=(0, 16),
    reorders=(False, True),
    start_token=0,
    reference="/a/reference",
    folder="/a/run",
    hash_weights=True,
)
REFERENCE = ReferenceJob(
    checkpoint="/a",
    graphs=(ReferenceGraph(recipe=RECIPE, probes=(Probe("batch 1", {"batch": 1}),), folder="/a/reference"),),
    dtype="fp32",
    threads=1,
    exact=None,
    exact_checkpoint="/a",
    answered=False,
)
PADDED = PaddedReferenceJob(
    checkpoint="/a",
    sizes={"encoder": {"batch": 1}, "decoder": {"batch": 2}},
    calls=(GenerateCall(max_length=8, num_beams=2),),
    threads=1,
    folder="/a/reference",
)
CONVERSION = ConversionJob(
    source="/a",
    format="pytorch",
    files=("/a/pytorch_model.bin",),
    sharded=False,
    architectures=("BertModel",),
    folder="/b",
    dequantise=False,
    unwrap=True,
)
MERGE = MergeJob(adapter="/a", adapter_weights="/a/x", base="/b", base_name="b", dtype="fp32", bare=False, folder="/c")
JOBS = (RUNNER, REFERENCE, PADDED, CONVERSION, MERGE)


@pytest.mark.parametrize("message", JOBS, ids=lambda message: type(message).__name__)
def test_a_job_is_the_same_after_json(message: Any) -> None:
    assert read(json.loads(json.dumps(plain(message))), type(message)) == message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"threads": "two"}, r"Expected `int`, got `str` - at `\$.threads`"),
        ({"thread": 2}, "unknown field `thread`"),
        ({"graphs": [{"graph": "model"}]}, "missing required field"),
    ],
)
def test_a_job_with_a_wrong_field_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InternalError, match=f"RunnerJob: .*{said}"):
        read(plain(RUNNER) | change, RunnerJob)
    missing = plain(RUNNER)
    del missing["folder"]
    with pytest.raises(InternalError, match="missing required field `folder`"):
        read(missing, RunnerJob)


def test_an_answer_of_another_type_is_refused() -> None:
    answer = {"session": "default", "refusals": {"1": "no"}, "refused_again": "", "wall_s": 1.5, "peak_rss_bytes": 9}
    assert read(answer, RunnerAnswer).refusals == {"1": "no"}
    with pytest.raises(InternalError, match=r"RunnerAnswer: .*\$.refusals"):
        read(answer | {"refusals": ["no"]}, RunnerAnswer)
    with pytest.raises(InternalError, match=r"ConversionAnswer: .*\$.left_out"):
        read({"left_out": "pooler", "removed_prefixes": []}, ConversionAnswer)
    assert read({"wall_s": 1.0, "peak_rss_bytes": 2}, ReferenceAnswer).left_out == {}


def test_a_value_of_a_subclass_is_written_as_its_base() -> None:
    class Version(str):
        __slots__ = ()

    assert plain(ReferenceAnswer(versions={"torch": Version("2.13")}))["versions"] == {"torch": "2.13"}
    with pytest.raises(TypeError, match="object is no JSON value"):
        plain(ReferenceAnswer(versions={"torch": object()}))  # type: ignore[dict-item]
