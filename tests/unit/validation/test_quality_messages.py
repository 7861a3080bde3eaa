"""Jobs and answers of the processes that measure variants."""

from __future__ import annotations

import json

import pytest

from hfexport._internal.messages import plain, read
from hfexport.errors import InternalError
from hfexport.export_config.probes import Probe
from hfexport.validation.quality.messages import ModelAnswer, ModelCase, ModelGraph, ModelJob, StoredAnswer, StoredJob

GRAPH = ModelGraph(recipe={"model_type": "bert", "task": "default", "trust_remote_code": False}, folder="/a/model")
JOB = ModelJob(checkpoint="/c", tokenizer="/t", data=None, threads=1, graphs=(GRAPH,))
PROBE = Probe("batch 2", {"batch": 2, "sequence": 5}, padding="right")
ANSWER = ModelAnswer(data="texts", samples=3, graphs={"model": (ModelCase(probe=PROBE, real=True),)}, wall_s=1.5)
STORED = StoredJob(format="onnx", plain="/a/model.onnx", variant="/a/model_q4.onnx")


@pytest.mark.parametrize("message", [JOB, ANSWER, STORED, StoredAnswer(error=0.5, worst="w", missing=("a", "b"))])
def test_a_message_is_read_as_it_was_written(message: ModelJob | ModelAnswer | StoredJob | StoredAnswer) -> None:
    assert read(json.loads(json.dumps(plain(message))), type(message)) == message


def test_a_probe_comes_back() -> None:
    found = read(json.loads(json.dumps(plain(ANSWER))), ModelAnswer)
    assert found.graphs["model"][0].probe == PROBE


@pytest.mark.parametrize(
    ("message", "change", "said"),
    [
        (JOB, {"graphs": [{"folder": "/a"}]}, "missing required field `recipe`"),
        (JOB, {"threads": "1"}, r"Expected `int`, got `str` - at `\$.threads`"),
        (STORED, {"format": "neuron"}, "Invalid enum value 'neuron'"),
        (ANSWER, {"samples": None}, r"Expected `int`, got `null` - at `\$.samples`"),
        (
            ANSWER,
            {"graphs": {"model": [{"probe": {"name": "x", "sizes": {"batch": "two"}}, "real": True}]}},
            r"Expected `int`, got `str` - at `\$.graphs\[...\]\[0\].probe.sizes\[...\]`",
        ),
        (
            ANSWER,
            {"graphs": {"model": [{"probe": {"name": "x", "sizes": {}, "padding": "top"}, "real": True}]}},
            r"Invalid enum value 'top' - at .*probe.padding",
        ),
    ],
)
def test_another_message_is_refused(
    message: ModelJob | ModelAnswer | StoredJob, change: dict[str, object], said: str
) -> None:
    with pytest.raises(InternalError, match=said):
        read({**plain(message), **change}, type(message))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"task": 3}, r"Expected `str \| object`, got `int` - at `\$.graphs\[0\].recipe.task`"),
        ({"positions": {"max_positions": "many"}}, r"Expected `int`, got `str` - at .*recipe.positions"),
        ({"more_outputs": {"model": [{"name": "x"}]}}, r"missing required field .* at .*recipe.more_outputs"),
    ],
)
def test_a_wrong_recipe_is_refused(change: dict[str, object], said: str) -> None:
    values = plain(JOB)
    recipe = {"model_type": "bert", "task": "default", "trust_remote_code": False}
    values["graphs"] = [{"recipe": recipe, "folder": "/a"}]
    assert read(values, ModelJob).graphs[0].recipe == recipe
    values["graphs"] = [{"recipe": {**recipe, **change}, "folder": "/a"}]
    with pytest.raises(InternalError, match=said):
        read(values, ModelJob)
