"""Judge an artifact's outputs probe by probe, by the tolerance or by the model in higher precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hfexport.export_config import ExportConfig, Tolerance
from hfexport.export_config.probes import Probe
from hfexport.validation.arrays import read_arrays
from hfexport.validation.compare import Yardstick, compare_probe, declared_problem
from hfexport.validation.precision import FAR, largest_of, relative_errors, unfit
from hfexport.validation.readable import hidden_positions
from hfexport.validation.verdict import ProbeResult

__all__ = ["Answers", "judge_all"]


@dataclass(frozen=True)
class Answers:
    """Outputs for the probes of one graph, and how they are judged.

    Attributes:
        config: export config of the graph.
        probes: probes in the order in which they were run.
        dtype: `fp32` or `fp16`.
        reference: folder with `inputs/{n}`, `outputs/{n}` and optionally `exact/{n}`.
        artifact: folder with `outputs/{n}`.
        refusals: by probe number, the runtime's error for probes that the artifact rejected.
        tolerance: allowed difference of values.
        refused_again: the runtime's error for the first probe when it was run again after all others.
    """

    config: ExportConfig
    probes: Sequence[Probe]
    dtype: str
    reference: Path
    artifact: Path
    refusals: Mapping[str, str]
    tolerance: Tolerance
    refused_again: str = ""

    def judge(self, number: int, yardstick: Yardstick | None = None) -> ProbeResult:
        """Compare the outputs for one probe; if it was run twice, both."""
        first = self._judge(number, str(number), yardstick)
        if number or not first.passed or self.probes[0].greedy_steps:
            return first
        if self.refused_again:
            problem = f"run again after all others, the artifact rejects it: {self.refused_again}"
            return ProbeResult(self.probes[0], problem=problem)
        again = self._judge(0, "again", yardstick)
        if again.passed:
            return first
        return replace(
            again, problem=again.problem or "run again after all others, it gives other outputs than at first"
        )

    def _judge(self, number: int, answered: str, yardstick: Yardstick | None) -> ProbeResult:
        """Compare the outputs in `outputs/{answered}` for a probe."""
        probe = self.probes[number]
        if (refusal := self.refusals.get(str(number))) is not None:
            return ProbeResult(probe, problem=f"the artifact refused it: {refusal}")
        wanted = read_arrays(self.reference / "outputs" / str(number))
        if problem := declared_problem(self.config, probe, wanted):
            return ProbeResult(probe, problem=problem)
        found = read_arrays(self.artifact / "outputs" / answered)
        inputs = read_arrays(self.reference / "inputs" / str(number))
        hidden = hidden_positions(self.config, probe, inputs, wanted)
        return compare_probe(probe, found, wanted, self.tolerance, hidden, yardstick)

    def yardsticks(self) -> list[Yardstick]:
        """Read the outputs in higher precision for every probe, and the eager model's errors over all of them."""
        exact = [read_arrays(self.reference / "exact" / str(number)) for number in range(len(self.probes))]
        errors = []
        for number, (probe, wanted) in enumerate(zip(self.probes, exact, strict=True)):
            eager = read_arrays(self.reference / "outputs" / str(number))
            inputs = read_arrays(self.reference / "inputs" / str(number))
            found = relative_errors(eager, wanted, hidden_positions(self.config, probe, inputs, wanted))
            if self.dtype == "fp16":
                _refuse_unfit(probe, found)
            errors.append(found)
        largest = largest_of(errors)
        return [Yardstick(wanted, largest, self.dtype) for wanted in exact]


def _refuse_unfit(probe: Probe, errors: Mapping[str, float]) -> None:
    """Reject a model whose float16 outputs are far from its float32 outputs: no artifact could be correct."""
    for name, error in errors.items():
        if error > FAR:
            found = "not finite" if error == float("inf") else f"off by {error:.2g} of its largest value"
            raise unfit(f"its own {name} at {probe.name} is {found} in float16")


def judge_all(answers: Answers, exact: bool, ask_exactly: Callable[[], bool]) -> tuple[ProbeResult, ...]:
    """Judge all probes.

    Args:
        answers: outputs to judge.
        exact: outputs in higher precision exist and are used.
        ask_exactly: runs the model in higher precision and returns whether it ran. Called if values miss the tolerance
            by so little that the model may be ill-conditioned.

    Raises:
        UnsupportedError: the model is not fit for float16.
    """
    numbers = range(len(answers.probes))
    if not exact:
        results = tuple(answers.judge(number) for number in numbers)
        if not any(map(_may_be_rounding, results)) or not all(one.passed or _may_be_rounding(one) for one in results):
            return results
        if not ask_exactly():
            return results
        yardsticks = answers.yardsticks()
        # A float64 model that is far from the float32 one, or not finite, is another model and cannot be used.
        if not all(error <= FAR for yardstick in yardsticks for error in yardstick.errors.values()):
            return results
        return tuple(answers.judge(number, yardsticks[number]) for number in numbers)
    yardsticks = answers.yardsticks()
    return tuple(answers.judge(number, yardsticks[number]) for number in numbers)


def _may_be_rounding(result: ProbeResult) -> bool:
    """Return whether a probe failed only by small differences of values."""
    failed = [output for output in result.outputs if output.problem]
    return not result.problem and bool(failed) and all(output.slightly_off for output in failed)
