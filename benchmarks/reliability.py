"""Run the fuzz and fault tests, and write their figures into docs/reliability.md.

`python benchmarks/reliability.py [--inputs 10000] [--seed N]`. The full-disk faults need root. The exit code is 1 if any
fuzzed input or fault breaks a rule.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "tests")]

PAGE = ROOT / "docs" / "reliability.md"
START, END = "<!-- figures -->\n", "<!-- end of figures -->\n"
SIZES = ("4k", "20k", "60k", "100k", "110k", "140k", "200k", "300k")


def main() -> int:
    """Run all tests and write the page; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--jobs", type=int, default=1, help="processes that run inputs at the same time")
    parser.add_argument(
        "--no-faults", action="store_true", help="run only the fuzz tests, and leave out the table of faults"
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hfexport-reliability-") as folder:
        fuzzed = _fuzz(Path(folder), asked.seed, asked.inputs, asked.jobs)
        faults = [] if asked.no_faults else _faults(Path(folder))
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + START + _tables(fuzzed, faults) + END + after, encoding="utf-8")
    for problem in fuzzed["problems"]:
        print(json.dumps(problem), file=sys.stderr)
    return 1 if fuzzed["problems"] or any(good < count for _, good, count in faults) else 0


def _fuzz(folder: Path, seed: int, count: int, jobs: int) -> dict[str, Any]:
    import fuzzed_runs

    print(f"seed {seed}", flush=True)
    return fuzzed_runs.fuzz(folder / "fuzz", seed, count, jobs=jobs)


def _faults(folder: Path) -> list[tuple[str, int, int]]:
    """Return for each fault the number of runs that ended as expected, and the number of all runs."""
    import faulty_runs
    from tiny import make_checkpoint

    checkpoint = make_checkpoint(folder / "checkpoint", "bert", "default")
    number = iter(range(10_000))

    def place() -> Path:
        return folder / f"run{next(number)}"

    def all_of(good: Callable[[str], bool], cases: tuple[str, ...]) -> tuple[int, int]:
        return sum(good(case) for case in cases), len(cases)

    def full(size: str) -> bool:
        outcomes = [
            faulty_runs.full_disk(checkpoint, place(), size, "--formats", name) for name in ("onnx", "torchscript")
        ]
        # Too little for the weights is refused before any work, with exit code 2.
        return all(_refused(outcome, 5) or _refused(outcome, 2) for outcome in outcomes)

    def removed(stage: str) -> bool:
        # A folder that is removed before the run wrote to it is made again, and gets the whole export.
        outcome = faulty_runs.removed_at(stage, checkpoint, place())
        return _refused(outcome, 5) or (outcome.exit_code, outcome.verdict, outcome.left) == (0, "passed", ())

    def killed(stage: str) -> bool:
        output = place()
        faulty_runs.killed_at(stage, checkpoint, output)
        again = faulty_runs.run(checkpoint, output)
        return (again.exit_code, again.verdict, again.left) == (0, "passed", ())

    def read_only(_: str) -> bool:
        outcome = faulty_runs.read_only(checkpoint, place())
        return outcome.exit_code == 5 and "do not use it" in outcome.said and "Traceback" not in outcome.said

    return [
        (f"the disk is full: {', '.join(SIZES)}, each format", *all_of(full, SIZES)),
        ("the output folder is on a read-only file system", *all_of(read_only, ("",))),
        ("the output folder is removed as a stage begins", *all_of(removed, faulty_runs.STAGES)),
        ("SIGKILL as a stage begins, then a second run", *all_of(killed, faulty_runs.STAGES)),
    ]


def _refused(outcome: Any, code: int) -> bool:
    return bool(
        outcome.exit_code == code
        and outcome.verdict in ("", "error")
        and not outcome.left
        and "Traceback" not in outcome.said
    )


def _tables(fuzzed: dict[str, Any], faults: list[tuple[str, int, int]]) -> str:
    codes = "".join(f"| exit code {code} | {count} |\n" for code, count in fuzzed["exit_codes"].items())
    fuzz = (
        f"\n| fuzz of whole runs | |\n|---|---|\n| inputs | {fuzzed['count']}, seed {fuzzed['seed']} |\n"
        f"| checkpoints that they were made from | {fuzzed['architectures']} |\n{codes}"
        f"| processor time of an input without its child processes, mean | {fuzzed['cpu_s'] / fuzzed['count']:.2f} s |\n"
        f"| longest run | {fuzzed['longest_s']:.0f} s |\n| largest run | {fuzzed['largest_rss_bytes'] / 1e6:.0f} MB |\n"
        f"| inputs that broke a rule | {len(fuzzed['problems'])} |\n\n"
    )
    if not faults:
        return fuzz
    rows = "".join(f"| {fault} | {good} of {count} |\n" for fault, good, count in faults)
    return fuzz + f"| fault | ended as it should |\n|---|---|\n{rows}\n"


if __name__ == "__main__":
    sys.exit(main())
