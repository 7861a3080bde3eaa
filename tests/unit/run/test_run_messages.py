"""Jobs of the exporting process: the child reads what the parent wrote, and rejects anything else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hfexport._internal.messages import plain, read
from hfexport.errors import InternalError
from hfexport.hub.snapshot import HubModel
from hfexport.hub.source import Fetched, Source
from hfexport.run.inputs import Inputs
from hfexport.run.messages import DescribingJob, ExportSubject, IsolatedJob, VerifySubject

INPUTS = Inputs(
    formats=("onnx", "neuron"),
    variants=("fp16", "q8"),
    fixed={"batch": 1, "sequence": 16},
    atol=1e-4,
    layout="single",
    allow_unused=("pooler",),
    opset=20,
)


def fetched() -> Fetched:
    model = HubModel("org/tiny", "main", "a" * 40, "")
    base = Fetched(Source("base", Path("/base")), Path("/base"), {})
    return Fetched(Source("org/tiny", Path("/x"), model), Path("/x/y"), {Path("/x/y/config.json"): "b" * 64}, base)


def job(subject: ExportSubject | VerifySubject) -> IsolatedJob:
    places = {"staging": "/staging", "directory": "/", "events": "/events"}
    return IsolatedJob(subject=subject, inputs=INPUTS, fetched=fetched().to_message(), hidden=("/home",), **places)


@pytest.mark.parametrize(
    "subject",
    [ExportSubject(manifest={"verdict": "error"}), VerifySubject(name="out", folder="/out", manifest={"files": []})],
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
    ],
)
def test_another_job_is_refused(change: dict[str, object], said: str) -> None:
    written = plain(job(ExportSubject(manifest={})))
    with pytest.raises(InternalError, match=said):
        read({**written, **change}, IsolatedJob)


def test_a_description_without_its_folder_is_refused() -> None:
    values = plain(DescribingJob(folder="/x", inputs=INPUTS, staging="/s", answers="/a", threads=1))
    assert read(values, DescribingJob).inputs == INPUTS
    del values["folder"]
    with pytest.raises(InternalError, match="missing required field `folder`"):
        read(values, DescribingJob)
