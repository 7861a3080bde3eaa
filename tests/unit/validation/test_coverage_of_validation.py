"""The job summary says up to which sizes an artifact was validated, and what was not compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoConfig

from hfexport.backends.base import Artifact
from hfexport.errors import ValidationError
from hfexport.export_config import Tolerance
from hfexport.export_config.builtin import config_class_for
from hfexport.export_config.probes import Probe
from hfexport.export_config.tasks import TASKS
from hfexport.export_config.windows import unasked_thresholds
from hfexport.manifest.results import validation_entry
from hfexport.manifest.summary import TABLE_COLUMNS, job_summary, loose_lines, table_rows
from hfexport.run.loose_tolerance import refuse_loose
from hfexport.validation import ArtifactVerdict, OutputResult, ProbeResult, not_run
from hfexport.validation.compare import compare_probe


def manifest_with(validation: dict[str, Any], **limits: dict[str, int]) -> Any:
    validation = {
        **{"verdict": "passed", "reason": "", "session": "default", "tolerance": {"atol": 2e-5, "rtol": 1e-4}},
        **{"max_abs_diff": 1e-7, "max_rel_diff": 1e-6, "checks": [], "probes": []},
        **validation,
    }
    artifact = {"format": "onnx", "path": "onnx/model.onnx", "files": [], "inputs": [], "outputs": []}
    artifact |= {"fixed_sizes": None, "limits": limits, "details": {}, "validation": validation}
    return {
        **{"verdict": "passed", "error": None, "source": None, "publication": None, "stages": []},
        "artifacts": [artifact],
    }


def test_the_largest_size_of_each_axis_over_all_probes_counts() -> None:
    output = OutputResult("logits", "float32", (1,), 0.0, 0.0)
    sizes = ({"batch": 3, "sequence": 2}, {"batch": 1, "sequence": 512}, {"batch": 1, "past": 17})
    results = tuple(ProbeResult(Probe(str(one), one), (output,)) for one in sizes)
    verdict = ArtifactVerdict("passed", Tolerance(1e-5, 0.0), results)
    assert verdict.validated_up_to == {"batch": 3, "sequence": 512, "past": 17}


def test_the_summary_says_how_far_an_axis_goes_past_what_was_asked() -> None:
    sizes = {"batch": 3, "sequence": 512, "choice": 2}
    manifest = manifest_with(
        {"validated_up_to": sizes, "left_out": ["pooler_output", "past_key_values"]},
        sequence={"minimum": 1, "maximum": 4096},
        choice={"minimum": 1, "maximum": 2},
    )
    lines = job_summary(manifest).splitlines()
    assert "- onnx/model.onnx: validated up to batch 3, sequence 512 of 4096, choice 2" in lines
    assert r"- onnx/model.onnx: not among its outputs, not compared: pooler\_output, past\_key\_values" in lines


def test_a_loose_tolerance_is_said() -> None:
    loose = validation_entry(ArtifactVerdict("failed", Tolerance(0.5, 0.0)))
    assert (
        loose["loose_tolerance"]
        and not validation_entry(ArtifactVerdict("failed", Tolerance(0.02, 0.02)))["loose_tolerance"]
    )
    summary = job_summary(manifest_with({"loose_tolerance": True, "tolerance": loose["tolerance"]}))
    assert "onnx/model.onnx: compared within a loose tolerance, 0.5 + 0 times the model's value" in summary
    assert "loose tolerance" not in job_summary(manifest_with({"loose_tolerance": False}))
    (line,) = loose_lines(manifest_with({"loose_tolerance": True, "tolerance": loose["tolerance"]})["artifacts"])
    assert line in summary


def test_what_a_users_class_held_loosely_is_not_published() -> None:
    artifact = Artifact("onnx", Path("onnx/model.onnx"), (), {})
    with pytest.raises(ValidationError, match="atol 0.5 and rtol 0; above 0.02"):
        refuse_loose([(artifact, ArtifactVerdict("failed", Tolerance(0.5, 0.0)))])
    refuse_loose([(artifact, ArtifactVerdict("failed", Tolerance(0.02, 0.02))), (artifact, not_run("validate is off"))])


@pytest.mark.parametrize(
    ("window", "longest", "unasked"),
    [
        (4096, {"sequence": 512, "past_sequence": 0}, {"sliding_window": 4096}),
        (512, {"sequence": 512, "past_sequence": 0}, {"sliding_window": 512}),
        (512, {"sequence": 1, "past_sequence": 515}, {}),
        (8192, {"sequence": 512, "past_sequence": 0}, {}),
        (None, {"sequence": 512, "past_sequence": 0}, {}),
    ],
)
def test_windows_that_no_probe_passes_are_named(
    window: int | None, longest: dict[str, int], unasked: dict[str, int]
) -> None:
    values = AutoConfig.for_model("llama", max_position_embeddings=8192, sliding_window=window)
    config = config_class_for("llama")(values, TASKS["causal-lm-with-past"])
    assert unasked_thresholds(config, [{"batch": 3, "sequence": 2, "past_sequence": 9}, longest]) == unasked
    lines = job_summary(manifest_with({"unasked_thresholds": unasked}))
    assert (r"onnx/model.onnx: no probe is longer than sliding\_window" in lines) == bool(unasked)


def test_the_longest_window_of_all_layers_counts() -> None:
    values = AutoConfig.for_model("longformer", max_position_embeddings=4098, attention_window=[512, 1024, 2048])
    config = config_class_for("longformer")(values, TASKS["default"])
    assert unasked_thresholds(config, [{"batch": 1, "sequence": 512}]) == {"attention_window": 2048}
    assert unasked_thresholds(config, [{"batch": 1, "sequence": 2049}]) == {}


def test_the_table_shows_a_difference_relative_to_its_tolerance() -> None:
    """One value of 1e-9 that is off by 1e-7 is 100 times itself, and a hundredth of the tolerance."""
    wanted, found = np.array([1e-9, 1.0], np.float32), np.array([1.01e-7, 1.0], np.float32)
    probe = Probe("batch 1", {"batch": 1})
    result = compare_probe(probe, {"logits": found}, {"logits": wanted}, Tolerance(1e-5, 0.0))
    verdict = ArtifactVerdict("passed", Tolerance(1e-5, 0.0), (result,))
    assert verdict.tolerance_share == pytest.approx(0.01, rel=1e-3) and (verdict.max_rel or 0) > 90
    assert verdict.probe_lines == ("  batch 1: passed, off by 1e-07 at most, 0.01 of the tolerance",)
    (row,) = table_rows(manifest_with(validation_entry(verdict)))
    assert dict(zip(TABLE_COLUMNS, row, strict=True))["of tolerance"] == "1 %"
    wrong = compare_probe(probe, {"logits": found + 1}, {"logits": wanted}, Tolerance(0.5, 0.0))
    failed = ArtifactVerdict("failed", Tolerance(0.5, 0.0), (wrong,))
    assert (
        dict(zip(TABLE_COLUMNS, table_rows(manifest_with(validation_entry(failed)))[0], strict=True))["of tolerance"]
        == "2 times"
    )
    assert failed.probe_lines[0].startswith("  batch 1: failed, off by 1 at most, 2 of")
    integers = compare_probe(probe, {"ids": np.array([1])}, {"ids": np.array([2])}, Tolerance(0.5, 0.0))
    assert integers.outputs[0].tolerance_share == float("inf")


def test_nothing_is_said_of_an_artifact_that_did_not_pass_or_of_an_older_manifest() -> None:
    assert "validated up to" not in job_summary(manifest_with({"verdict": "failed", "validated_up_to": {"batch": 3}}))
    assert "validated up to" not in job_summary(manifest_with({}))
