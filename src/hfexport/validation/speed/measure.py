"""Measure the latency of the model and of every file that was made from it, each in new processes, in rounds.

In each round every contender starts in a new process, alone on the machine, and runs all of its calls; every other
round goes through the contenders in reverse. The figures of a call are those of all its repetitions in all rounds.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hfexport._internal import workers
from hfexport.errors import MODEL_FAILURES, HfexportError, first_line
from hfexport.export_config import ExportConfig, Limit
from hfexport.validation.limits import runner_limits
from hfexport.validation.memory import available_bytes
from hfexport.validation.sessions import ROOM_FOR_COPIES
from hfexport.validation.speed.calls import Call, calls_for, fixed_call
from hfexport.validation.speed.clock import read_times
from hfexport.validation.speed.protocol import ArtifactJob, EagerJob, TimedCall

if TYPE_CHECKING:
    from hfexport._internal.process import Limits
    from hfexport.backends.base import Artifact

__all__ = ["BUDGET_S", "EAGER", "ROUNDS", "Contender", "Result", "Setting", "Speed", "measure_speed"]

ROUNDS: Final = 3
BUDGET_S: Final = 600.0
"""Seconds that all processes may take together."""

EAGER: Final = "eager PyTorch"
"""Name of the model itself among the contenders."""

LEAST_S: Final = 1.0
"""Seconds below which no process is started."""

CALLS_SHARE: Final = 0.9
"""Share of a process's time in which it starts calls; the rest is for the last of them."""


@dataclass(frozen=True)
class Contender:
    """Files of one kind, such as those of a variant: one for each graph of the model.

    Attributes:
        name: name for tables.
        format: name of the format; empty for the model itself.
        variant: name of the variant; empty for the plain files and for the model.
        files: files with the export configs of their graphs, in the order in which generation runs them.
        floats: dtype of floating inputs, as numpy names it.
        size_bytes: size of the weights.
        reason: why it is not measured; empty if it is.
    """

    name: str
    format: str
    variant: str
    files: tuple[tuple[Artifact, ExportConfig], ...]
    floats: str
    size_bytes: int
    reason: str = ""

    def takes(self, call: Call) -> bool:
        """Return whether a graph of this name takes a call of these sizes."""
        if not self.format:
            return True
        for artifact, config in self.files:
            for branch in config.branches:
                fixed = {**branch.fixed_sizes, **artifact.fixed_sizes}
                if branch.graph == call.graph and all(
                    fixed[axis] == size if axis in fixed else _within(branch.limits.get(axis), size)
                    for axis, size in call.probe.sizes.items()
                ):
                    return True
        return False


def _within(limit: Limit | None, size: int) -> bool:
    return limit is None or (limit.minimum <= size and (limit.maximum is None or size <= limit.maximum))


@dataclass(frozen=True)
class Setting:
    """Model, folders and limits of a measurement.

    Attributes:
        checkpoint: returns the folder with the model's weights in the dtype of the export.
        dtype: `fp32` or `fp16`.
        folder: new folder for inputs and times; removed at the end.
        env: environment; child processes get an allow-list of it.
        budget_s: seconds that all processes may take together.
        rounds: number of rounds.
        limited: limit memory, processor time and file size of artifacts, for files made elsewhere.
        advance: called after each process.
    """

    checkpoint: Callable[[], Path]
    dtype: str
    folder: Path
    env: Mapping[str, str]
    budget_s: float = BUDGET_S
    rounds: int = ROUNDS
    limited: bool = False
    advance: Callable[[int], None] = field(default=lambda _: None)


@dataclass
class Result:
    """Times of a contender.

    Attributes:
        contender: the measured model or files.
        ms: milliseconds of every repetition, by number of the call.
        reasons: why a call was not timed, by number of the call.
        reason: why the contender was not measured, or not to its end; empty if it was.
        rounds: number of processes that ran.
    """

    contender: Contender
    ms: dict[int, list[float]] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    reason: str = ""
    rounds: int = 0


@dataclass(frozen=True)
class Speed:
    """Result of a measurement.

    Attributes:
        calls: all calls; the position in this list is the number of a call.
        results: one for each contender, in order.
        threads: number of threads of each process.
        budget_s: seconds that were allowed.
        seconds: seconds that it took.
        attention: attention implementation of the model itself; empty if it did not run.
    """

    calls: tuple[Call, ...]
    results: tuple[Result, ...]
    threads: int
    budget_s: float
    seconds: float
    attention: str


def measure_speed(contenders: Sequence[Contender], setting: Setting) -> Speed:
    """Measure every contender; one that cannot be measured gets a reason, and raises no error.

    Args:
        contenders: the model itself first, if it is to be measured.
        setting: see `Setting`.
    """
    start = time.monotonic()
    folder = setting.folder.resolve()
    results = [Result(contender, reason=contender.reason or _too_large(contender)) for contender in contenders]
    threads = workers.available_cores(setting.env)
    measurement = _Measurement(setting, folder, list(_all_calls(contenders)), _branches(contenders), threads, start)
    folder.mkdir(parents=True)
    try:
        measurement.write_inputs()
        for number in range(setting.rounds):
            if number and not measurement.has_time_for_another():
                break
            measurement.run_round(results if number % 2 == 0 else results[::-1])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for result in results:
        _explain(result, measurement.calls)
    seconds = time.monotonic() - start
    return Speed(tuple(measurement.calls), tuple(results), threads, setting.budget_s, seconds, measurement.attention)


def _all_calls(contenders: Sequence[Contender]) -> tuple[Call, ...]:
    """Return the calls of all contenders, each once, by graph in the order of generation."""
    found: dict[tuple[str, tuple[tuple[str, int], ...]], Call] = {}
    for contender in contenders:
        for artifact, config in contender.files:
            for branch in config.branches:
                own = (fixed_call(branch, artifact.fixed_sizes),) if artifact.fixed_sizes else calls_for(branch)
                for call in own:
                    found.setdefault((call.graph, tuple(sorted(call.probe.sizes.items()))), call)
    graphs = list(dict.fromkeys(graph for graph, _ in found))
    return tuple(sorted(found.values(), key=lambda call: graphs.index(call.graph)))


def _too_large(contender: Contender) -> str:
    """Return the reason if the memory has no room for the copies of weights that a runtime's default session makes."""
    available = available_bytes()
    if not contender.format or available is None or contender.size_bytes * ROOM_FOR_COPIES < available:
        return ""
    needed = contender.size_bytes * ROOM_FOR_COPIES / 1e9
    return (
        f"with the runtime's defaults it needs about {needed:.1f} GB of memory, and {available / 1e9:.1f} GB are free"
    )


def _shown(message: str, contender: Contender) -> str:
    """Return a message without the name of the process and without folders, which the user does not know."""
    message = message.removeprefix(f"{contender.name}: ")
    for artifact, _ in contender.files:
        for folder in {artifact.path.parent.absolute(), artifact.path.parent.resolve()}:
            message = message.replace(f"{folder}/", "")
    return message


def _explain(result: Result, calls: Sequence[Call]) -> None:
    """Give a reason to each call that a contender takes and that was not timed."""
    for number, call in enumerate(calls):
        if number in result.ms:
            result.reasons.pop(number, None)
        elif result.contender.takes(call):
            result.reasons[number] = call.reason or result.reasons.get(number) or result.reason or "not measured"


@dataclass
class _Measurement:
    """State of a measurement in progress."""

    setting: Setting
    folder: Path
    calls: list[Call]
    configs: Mapping[str, ExportConfig]
    threads: int
    start: float
    attention: str = ""
    round_s: float = 0.0

    @property
    def left_s(self) -> float:
        return self.setting.budget_s - (time.monotonic() - self.start)

    def has_time_for_another(self) -> bool:
        """Return whether a round that takes as long as the last one fits into the budget."""
        return self.left_s > self.round_s

    def write_inputs(self) -> None:
        """Write the inputs of every call that is not too large, in float32; calls without inputs get a reason."""
        from hfexport.validation.arrays import write_arrays

        for number, call in enumerate(self.calls):
            if call.reason:
                continue
            place = self.folder / "inputs" / str(number)
            try:
                write_arrays(place, call.probe.inputs(self.configs[call.graph], "fp32"))
            except (HfexportError, MemoryError, OSError, *MODEL_FAILURES) as error:
                shutil.rmtree(place, ignore_errors=True)
                said = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
                self.calls[number] = replace(call, reason=f"its inputs cannot be made: {said}")

    def run_round(self, results: Sequence[Result]) -> None:
        """Run every contender that has no reason against it in a new process, one after another."""
        before = time.monotonic()
        waiting = [result for result in results if not result.reason]
        for number, result in enumerate(waiting):
            share_s = self.left_s / (len(waiting) - number)
            if share_s < LEAST_S:
                if not result.rounds:
                    result.reason = self._out_of_time()
                continue
            self._run(result, share_s)
            self.setting.advance(1)
        self.round_s = time.monotonic() - before

    def _out_of_time(self) -> str:
        return f"the {self.setting.budget_s:g} s for the benchmark were used up"

    def _run(self, result: Result, share_s: float) -> None:
        """Run one contender, and take over its times, also if it crashes or is stopped half-way."""
        contender = result.contender
        place = self.folder / "process"
        shutil.rmtree(place, ignore_errors=True)
        module, job = self._job(contender, place, share_s * CALLS_SHARE)
        kind = "transformers" if not contender.format else "onnx" if contender.format == "onnx" else "torch"
        timed_out = False
        try:
            with workers.start(
                module,
                job,
                name=contender.name,
                folder=place,
                env=workers.child_environment(self.setting.env),
                kind=kind,
                limits=self._limits(contender, share_s),
            ) as worker:
                try:
                    answer = worker.result(share_s)
                finally:
                    timed_out = worker.timed_out
            self.attention = str(answer.get("attention", self.attention))
        except (HfexportError, OSError) as error:
            if not timed_out:
                result.reason = _shown(first_line(error), contender)
            elif not result.rounds:
                result.reason = self._out_of_time()
        result.rounds += 1
        for timed in read_times(place):
            if timed.ms:
                result.ms.setdefault(timed.call, []).extend(timed.ms)
            elif timed.reason:
                result.reasons.setdefault(timed.call, _shown(timed.reason, contender))

    def _limits(self, contender: Contender, timeout_s: float) -> Limits | None:
        if not self.setting.limited or not contender.format:
            return None
        return runner_limits(contender.size_bytes, timeout_s, self.threads)

    def _job(self, contender: Contender, place: Path, budget_s: float) -> tuple[str, dict[str, Any]]:
        """Return the module and the job of a contender's process."""
        from hfexport._internal.messages import plain
        from hfexport.validation.validate import graph_job

        asked = tuple(
            TimedCall(number=number, graph=call.graph)
            for number, call in enumerate(self.calls)
            if not call.reason and contender.takes(call)
        )
        inputs, folder = str(self.folder / "inputs"), str(place)
        if contender.format:
            graphs = tuple(
                graph_job(artifact, branch, contender.floats)
                for artifact, config in contender.files
                for branch in config.branches
            )
            job = ArtifactJob(
                format=contender.format,
                graphs=graphs,
                calls=asked,
                inputs=inputs,
                folder=folder,
                threads=self.threads,
                budget_s=budget_s,
            )
            return "hfexport.validation.speed.artifact", plain(job)
        recipes = tuple(config.recipe for config in self.configs.values())
        eager = EagerJob(
            checkpoint=str(self.setting.checkpoint().resolve()),
            recipes=recipes,
            dtype="fp16" if self.setting.dtype == "fp16" else "fp32",
            calls=asked,
            inputs=inputs,
            folder=folder,
            threads=self.threads,
            budget_s=budget_s,
        )
        return "hfexport.validation.speed.eager", plain(eager)


def _branches(contenders: Sequence[Contender]) -> dict[str, ExportConfig]:
    """Return the export config of every graph by its name, in the order of generation."""

    def all_of_them() -> Iterator[ExportConfig]:
        for contender in contenders:
            for _, config in contender.files:
                yield from config.branches

    found: dict[str, ExportConfig] = {}
    for config in all_of_them():
        found.setdefault(config.graph, config)
    return found
