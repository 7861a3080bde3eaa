"""What happens around an artifact is not taken for its answer: noise, signals, endless work, a lost reference."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from broken import Case, Endless, Loud, Unwilling, export_config, flat_model, make_case, reference_of, traced
from hfexport._internal.forkserver import FORK_SERVERS
from hfexport.backends.base import Artifact
from hfexport.cli.main import main
from hfexport.errors import UnsupportedError, ValidationError
from hfexport.export_config.probes import validation_probes
from hfexport.validation import Reference, resolve_tolerance, validate
from tiny import make_checkpoint


@pytest.fixture
def new_interpreters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start children as users' runs do: `kill_runner` finds them by their command lines."""
    monkeypatch.delenv(FORK_SERVERS)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    yield from make_case(tmp_path_factory.mktemp("answers"), "bert", "question-answering")


@pytest.fixture
def endless(answers: Case, tmp_path: Path) -> Artifact:
    return traced(answers, tmp_path, Endless(flat_model(answers)))


def test_what_a_right_artifact_prints_is_no_answer(answers: Case, tmp_path: Path) -> None:
    verdict = answers.judge(traced(answers, tmp_path, Loud(flat_model(answers))), tmp_path)
    assert verdict.verdict == "passed"
    assert (tmp_path / "run" / "output.log").read_text().count("::error::") >= 1000


def test_what_an_artifact_raises_is_a_failure(answers: Case, tmp_path: Path) -> None:
    verdict = answers.judge(traced(answers, tmp_path, Unwilling(flat_model(answers))), tmp_path)
    assert verdict.verdict == "failed"
    assert all("it does not want to" in result.problem for result in verdict.probes)
    assert not any("::error" in line for line in verdict.failures)


def kill_runner(folder: Path, which: signal.Signals) -> threading.Thread:
    """Send a signal to the child that works in `folder`, once it has loaded its artifact's library."""

    def watch() -> None:
        wanted = str(folder / "run" / "job.json").encode()
        while True:
            for entry in Path("/proc").glob("[0-9]*"):
                try:
                    found = wanted in (entry / "cmdline").read_bytes()
                    if found and b"libtorch" in (entry / "maps").read_bytes():
                        os.kill(int(entry.name), which)
                        return
                except OSError:
                    continue
            time.sleep(0.05)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


@pytest.mark.usefixtures("new_interpreters")
def test_a_killed_runner_judges_nothing(answers: Case, endless: Artifact, tmp_path: Path) -> None:
    watcher = kill_runner(tmp_path, signal.SIGKILL)
    with pytest.raises(ValidationError, match="torchscript: not checked, because .* killed by SIGKILL") as caught:
        answers.judge(endless, tmp_path)
    watcher.join()
    assert "memory" in caught.value.remedy


@pytest.mark.usefixtures("new_interpreters")
def test_a_crash_of_the_runner_is_the_artifacts(answers: Case, endless: Artifact, tmp_path: Path) -> None:
    watcher = kill_runner(tmp_path, signal.SIGSEGV)
    verdict = answers.judge(endless, tmp_path)
    watcher.join()
    assert verdict.verdict == "failed"
    assert "SIGSEGV" in verdict.reason


def test_a_runner_that_never_ends_is_stopped(answers: Case, endless: Artifact, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="not checked, because .* not finished after 2 s"):
        answers.judge(endless, tmp_path, timeout_s=2)


@pytest.fixture
def nothing(tmp_path: Path) -> Artifact:
    """An artifact that does not exist."""
    return Artifact("onnx", tmp_path / "model.onnx", ())


def test_a_reference_without_the_heads_weights_says_so(nothing: Artifact, tmp_path: Path) -> None:
    bare = make_checkpoint(tmp_path / "bare", "bert", "default")
    config = export_config(bare, "question-answering")
    with reference_of(bare, config, tmp_path / "reference").worker as worker:
        reference = Reference(worker, validation_probes(config), "fp32", tmp_path / "reference")
        tolerance = resolve_tolerance(config, "fp32", None, None)
        with pytest.raises(UnsupportedError, match="qa_outputs") as caught:
            validate(nothing, config, reference, tolerance, folder=tmp_path / "run", env=os.environ, timeout_s=900.0)
    assert caught.value.exit_code == 4
    assert not (tmp_path / "run" / "outputs").exists()


@dataclass(frozen=True)
class Late:
    """A reference that writes its arrays only when it is waited for.

    Attributes:
        made: folder with the arrays.
        folder: folder to write them to.
        run: folder of the runner.
        begun: whether the runner had been started then.
    """

    made: Path
    folder: Path
    run: Path
    begun: list[bool]

    def result(self, timeout_s: float | None = None) -> dict[str, Any]:
        del timeout_s
        self.begun.append((self.run / "job.json").exists())
        for part in sorted(path.relative_to(self.made) for path in self.made.glob("*puts/*")):
            if not (self.folder / part).exists():
                shutil.copytree(self.made / part, self.folder / part)
        for path in self.made.iterdir():
            if path.is_file():
                shutil.copy(path, self.folder)
        return {"wall_s": 0.0, "peak_rss_bytes": 0, "probes": [], "versions": {}, "left_out": {}}

    def stop(self) -> None:
        """There is no process."""


@pytest.mark.parametrize(("free_bytes", "beside"), [(1 << 40, True), (0, False)])
def test_a_runner_starts_before_the_reference_ends_if_memory_allows(
    answers: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_bytes: int, beside: bool
) -> None:
    monkeypatch.setattr("hfexport.validation.memory.available_bytes", lambda: free_bytes)
    answers.reference.worker.result()
    late = Late(answers.reference.folder, tmp_path / "late", tmp_path / "run", [])
    case = replace(answers, reference=replace(answers.reference, worker=late, folder=late.folder))
    late.folder.mkdir()
    verdict = case.judge(answers.onnx, tmp_path)
    assert verdict.verdict == "passed"
    assert verdict.weights is not None
    assert late.begun[0] is beside


def test_a_model_without_an_answer_is_not_a_bug_of_ours(tmp_path: Path) -> None:
    # transformers 5 cannot call FlauBERT with `pre_norm`: it takes a layer from a cache that has no such access.
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "flaubert", "default", pre_norm=True)
    config = export_config(checkpoint, "default")
    with (
        reference_of(checkpoint, config, tmp_path / "reference").worker as worker,
        pytest.raises(UnsupportedError, match="the model itself fails at batch 1, sequence 1.*TypeError"),
    ):
        worker.result()


def test_a_model_that_draws_at_random_is_not_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "informer", "auto")
    arguments = ["--model", str(checkpoint), "--formats", "torchscript", "--output", str(tmp_path / "output")]
    assert main(arguments) == 4
    assert "two runs of the model on the same inputs give different values of params.0" in capsys.readouterr().err


def test_a_killed_reference_judges_nothing(answers: Case, nothing: Artifact, tmp_path: Path) -> None:
    reference = reference_of(answers.checkpoint, answers.config, tmp_path / "reference")
    os.kill(reference.worker.pid, signal.SIGKILL)
    tolerance = resolve_tolerance(answers.config, "fp32", None, None)
    with pytest.raises(ValidationError, match="reference: killed by SIGKILL"):
        validate(
            nothing, answers.config, reference, tolerance, folder=tmp_path / "run", env=os.environ, timeout_s=900.0
        )
