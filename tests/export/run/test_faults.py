"""Whole runs that something goes wrong around: one clear error, no stale success, and the next run is whole."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import faulty_runs
from tiny import make_checkpoint

pytestmark = pytest.mark.usefixtures("warm_commands")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model") / "bert", "bert", "default")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    if not faulty_runs.can_mount(tmp_path):
        if os.environ.get("HFEXPORT_REQUIRE_MOUNT") == "1":
            pytest.fail("mounting a file system needs root")
        pytest.skip("mounting a file system needs root; HFEXPORT_REQUIRE_MOUNT=1 makes this a failure")
    return tmp_path / "disk"


def _hold_full(outcome: faulty_runs.Outcome, disk: Path) -> None:
    assert outcome.exit_code == 5, outcome.said
    assert re.search(rf"{disk}/out' has no room: (\d+ bytes are needed, )?\d+ bytes are free", outcome.said)
    assert "Traceback" not in outcome.said
    assert outcome.verdict in ("error", "")
    assert outcome.left == ()


def test_a_disk_that_is_full_while_torch_writes(checkpoint: Path, disk: Path) -> None:
    _hold_full(faulty_runs.full_disk(checkpoint, disk, "100k", "--formats", "torchscript", "--validate", "off"), disk)


@pytest.mark.thorough
@pytest.mark.parametrize("size", ["4k", "20k", "60k", "100k", "110k", "140k", "200k", "300k", "400k"])
@pytest.mark.parametrize("formats", ["onnx", "torchscript"])
def test_a_disk_that_is_full_at_every_stage(checkpoint: Path, disk: Path, size: str, formats: str) -> None:
    outcome = faulty_runs.full_disk(checkpoint, disk, size, "--formats", formats)
    if outcome.exit_code == 0 and size == "400k":  # it is large enough
        assert (outcome.verdict, outcome.left) == ("passed", ())
    elif outcome.exit_code == 2:  # too small even for the weights: refused before work begins
        assert "of disk are needed" in outcome.said
        assert "kB are free" in outcome.said
        assert outcome.left == ()
    else:
        _hold_full(outcome, disk)


def test_an_output_folder_that_cannot_be_written_to(checkpoint: Path, disk: Path) -> None:
    outcome = faulty_runs.read_only(checkpoint, disk)
    assert outcome.exit_code == 5, outcome.said
    assert "Read-only file system" in outcome.said
    assert "The earlier export in" in outcome.said and "do not use it" in outcome.said
    assert "Traceback" not in outcome.said


def _hold_removed(outcome: faulty_runs.Outcome) -> None:
    assert outcome.exit_code == 5, outcome.said
    assert "was removed while hfexport wrote into it" in outcome.said
    assert "Traceback" not in outcome.said
    assert (outcome.verdict, outcome.left) == ("", ())


def test_an_output_folder_that_is_removed_in_mid_run(checkpoint: Path, tmp_path: Path) -> None:
    options = ("--formats", "torchscript", "--validate", "off")
    _hold_removed(faulty_runs.removed_at("Model configuration", checkpoint, tmp_path / "out", *options))


@pytest.mark.thorough
@pytest.mark.parametrize("stage", faulty_runs.STAGES)
def test_an_output_folder_that_is_removed_at_any_stage(stage: str, checkpoint: Path, tmp_path: Path) -> None:
    outcome = faulty_runs.removed_at(stage, checkpoint, tmp_path / "out")
    if outcome.exit_code == 0:  # it was removed before the run wrote to it, and made again
        assert (outcome.verdict, outcome.left) == ("passed", ())
    elif "was removed while" in outcome.said:
        _hold_removed(outcome)
    else:  # a child process wrote while the folder was removed, so that the folder itself stayed
        assert outcome.exit_code == 5, outcome.said
        assert "No such file or directory" in outcome.said
        assert (outcome.verdict, outcome.left) in (("error", ()), ("", ()))


def _hold_killed(stage: str, checkpoint: Path, output: Path, *options: str) -> None:
    killed = faulty_runs.killed_at(stage, checkpoint, output, *options)
    assert killed.exit_code == -9
    assert killed.verdict == ""
    again = faulty_runs.run(checkpoint, output, *options)
    assert again.exit_code == 0, again.said
    assert again.left == ()
    assert not list(output.glob(".hfexport*"))


def test_a_run_that_is_killed_and_the_next(checkpoint: Path, tmp_path: Path) -> None:
    options = ("--formats", "torchscript", "--validate", "off")
    _hold_killed("Export to torchscript", checkpoint, tmp_path / "out", *options)


@pytest.mark.thorough
@pytest.mark.parametrize("stage", faulty_runs.STAGES)
def test_a_run_that_is_killed_at_any_stage_and_the_next(stage: str, checkpoint: Path, tmp_path: Path) -> None:
    _hold_killed(stage, checkpoint, tmp_path / "out")
