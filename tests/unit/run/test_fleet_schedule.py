"""The processes of a fleet: how many at once, which attempts are repeated, and which exit code counts."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from hfexport.manifest.entries import error_entry, new_manifest
from hfexport.run.fleet.current import Found
from hfexport.run.fleet.expand import expand
from hfexport.run.fleet.file import read_fleet
from hfexport.run.fleet.plan import Planned
from hfexport.run.fleet.schedule import WORST_FIRST, Outcome, Settings, run_all, worst
from hfexport.run.inputs import Inputs, recorded
from hfexport.run.preflight import peak_bytes

GB = 10**9


@pytest.fixture
def planned(tmp_path: Path) -> Callable[..., list[Planned]]:
    def make(*sizes_bytes: int) -> list[Planned]:
        names = "".join(f"- model: org/m{number}\n" for number in range(len(sizes_bytes)))
        (tmp_path / "models.yaml").write_text(f"models:\n{names}", encoding="utf-8")
        groups = read_fleet(tmp_path / "models.yaml")
        members = expand(groups, str(tmp_path / "out"), lambda: pytest.fail("no Hub"), lambda _: None)
        return [Planned(member, Found(size)) for member, size in zip(members, sizes_bytes, strict=True)]

    return make


def _settings(tmp_path: Path, program: str, *, jobs: int = 1, retries: int = 2, memory: int | None = None) -> Settings:
    """Each model's process is a short program: `name` and `output` of the model, `folder`, and the failures it may write."""
    start = f"""
        import json, os, signal, sys, time
        from pathlib import Path
        name, output, folder = sys.argv[1], Path(sys.argv[2]), Path({str(tmp_path)!r})
        output.mkdir(parents=True, exist_ok=True)
        attempt = len(list(folder.glob(f"{{name[-2:]}}.*")))
        (folder / f"{{name[-2:]}}.{{attempt}}").touch()
        def fail(kind):
            (output / "hfexport.json").write_text((folder / f"{{kind}}.json").read_text())
            sys.exit(json.loads((folder / f"{{kind}}.json").read_text())["error"]["exit_code"])
    """
    from hfexport.errors import CheckpointError, ExportError, ValidationError

    for kind, error in (
        ("network", CheckpointError("cannot be reached").by("network")),
        ("machine", ExportError("no room").by("machine")),
        ("validation", ValidationError("wrong")),
    ):
        manifest = {**new_manifest(recorded(Inputs()), "2026-01-01T00:00:00+00:00"), "error": error_entry(error)}
        (tmp_path / f"{kind}.json").write_text(json.dumps(manifest), encoding="utf-8")
    text = textwrap.dedent(start) + textwrap.dedent(program)

    def command(one: Planned) -> Sequence[str]:
        return [sys.executable, "-c", text, one.member.name, one.member.inputs.output]

    return Settings(jobs, retries, memory, dict(os.environ), command, (0.0,))


def _run(todo: Sequence[Planned], settings: Settings) -> tuple[list[Outcome], list[Outcome]]:
    told: list[Outcome] = []
    return run_all(todo, settings, told.append), told


def test_failures_of_the_network_and_the_machine_are_tried_again(
    tmp_path: Path, planned: Callable[..., list[Planned]]
) -> None:
    program = """
        if attempt == 0: fail("network" if name.endswith("0") else "machine")
        if attempt == 1: os.kill(os.getpid(), signal.SIGKILL)
    """
    outcomes, told = _run(planned(0, 0), _settings(tmp_path, program))
    assert [outcome.exit_code for outcome in outcomes] == [0, 0]
    assert [outcome.attempts for outcome in outcomes] == [3, 3]
    said = sorted((one.planned.member.name, one.exit_code, one.failed_by, one.final) for one in told)
    assert said[:3] == [("org/m0", 0, "", True), ("org/m0", 3, "network", False), ("org/m0", 5, "machine", False)]
    assert said[3:] == [("org/m1", 0, "", True), ("org/m1", 5, "machine", False), ("org/m1", 5, "machine", False)]


def test_a_failed_validation_is_never_tried_again(tmp_path: Path, planned: Callable[..., list[Planned]]) -> None:
    outcomes, told = _run(planned(0, 0), _settings(tmp_path, 'if name.endswith("0"): fail("validation")'))
    assert [(outcome.exit_code, outcome.attempts) for outcome in outcomes] == [(6, 1), (0, 1)]
    assert len(told) == 2


def test_retries_end(tmp_path: Path, planned: Callable[..., list[Planned]]) -> None:
    outcomes, _ = _run(planned(0), _settings(tmp_path, 'fail("network")', retries=1))
    assert [(outcome.exit_code, outcome.attempts, outcome.failed_by) for outcome in outcomes] == [(3, 2, "network")]
    outcomes, _ = _run(planned(0), _settings(tmp_path, 'fail("network")', retries=0))
    assert outcomes[0].attempts == 1


def test_the_error_of_an_earlier_run_is_not_that_of_this_one(
    tmp_path: Path, planned: Callable[..., list[Planned]]
) -> None:
    program = """
        (output / "hfexport.json").write_text((folder / "network.json").read_text())
        sys.exit(2)
    """
    outcomes, _ = _run(planned(0), _settings(tmp_path, program))
    assert (outcomes[0].exit_code, outcomes[0].attempts) == (2, 1)


LARGEST = """
    (folder / f"running.{os.getpid()}").touch()
    most = 0
    for _ in range(8):
        time.sleep(0.05)
        most = max(most, len(list(folder.glob("running.*"))))
    (folder / f"running.{os.getpid()}").unlink()
    print(most)
"""


def _most(outcomes: Sequence[Outcome]) -> int:
    return max(int(outcome.log.read_text(encoding="utf-8").split()[-1]) for outcome in outcomes)


def test_as_many_at_once_as_there_are_jobs(tmp_path: Path, planned: Callable[..., list[Planned]]) -> None:
    outcomes, _ = _run(planned(*[0] * 5), _settings(tmp_path, LARGEST, jobs=2))
    assert _most(outcomes) <= 2


def test_memory_limits_what_runs_at_once(tmp_path: Path, planned: Callable[..., list[Planned]]) -> None:
    memory = 2 * peak_bytes(GB) - 1
    outcomes, _ = _run(planned(GB, GB, GB), _settings(tmp_path, LARGEST, jobs=3, memory=memory))
    assert _most(outcomes) == 1
    outcomes, _ = _run(planned(100 * GB), _settings(tmp_path, LARGEST, jobs=3, memory=GB))
    assert outcomes[0].exit_code == 0, "a model that is larger than the memory is tried alone"


def test_what_failed_by_the_machine_is_tried_again_alone(tmp_path: Path, planned: Callable[..., list[Planned]]) -> None:
    program = 'if attempt == 0 and name.endswith("0"): fail("machine")\n' + textwrap.dedent(LARGEST)
    outcomes, _ = _run(planned(0, 0, 0), _settings(tmp_path, program, jobs=3))
    assert int(outcomes[0].log.read_text(encoding="utf-8").split()[-1]) == 1
    assert outcomes[0].attempts == 2


@pytest.mark.parametrize(
    ("codes", "expected"),
    [((), 0), ((0, 7, 2), 2), ((3, 6, 5), 6), ((6, 1), 1), ((0, 0), 0), ((8, 4), 8), ((99, 1), 99)],
)
def test_the_worst_exit_code_counts(codes: tuple[int, ...], expected: int) -> None:
    assert worst(codes) == expected


def test_the_order_is_the_documented_one() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "exit-codes.md").read_text(encoding="utf-8")
    assert ", ".join(map(str, WORST_FIRST)) in text


def test_an_output_that_another_run_works_in_is_waited_for(
    tmp_path: Path, planned: Callable[..., list[Planned]]
) -> None:
    todo = planned(0, 0)
    output = Path(todo[0].member.inputs.output)
    output.mkdir(parents=True)
    told: list[str] = []
    with ExitStack() as stack:
        descriptor = os.open(output, os.O_RDONLY)
        stack.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX)

        def tell(outcome: Outcome) -> None:
            told.append(outcome.planned.member.name)
            fcntl.flock(descriptor, fcntl.LOCK_UN)

        outcomes = run_all(todo, _settings(tmp_path, ""), tell)
    assert told == ["org/m1", "org/m0"]
    assert [(outcome.exit_code, outcome.attempts) for outcome in outcomes] == [(0, 1), (0, 1)]


def test_an_interrupt_ends_what_runs(tmp_path: Path, planned: Callable[..., list[Planned]]) -> None:
    program = """
        signal.signal(signal.SIGTERM, lambda *_: ((folder / "ended").touch(), sys.exit(143)))
        (folder / f"waits{name[-1]}").touch()
        if name.endswith("1"): time.sleep(600)
        while not (folder / "waits1").exists(): time.sleep(0.01)
    """

    def interrupt(outcome: Outcome) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_all(planned(0, 0), _settings(tmp_path, program, jobs=2), interrupt)
    assert (tmp_path / "ended").exists()
