"""`make mutation`: mutate finished artifacts of every kind of model, and count what `hfexport verify` refuses.

    python -m mutation [--models bert,gpt2] [--formats onnx] [--per-kind 2] [--seed 0] [--write]

Goes on where an earlier run of the same code was interrupted. `--write` writes docs/mutation.md and the first line
of its tables into docs/validation.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from mutation.harness import Harness, Result
from mutation.mutant import KINDS
from mutation.report import write_summary, write_tables
from mutation.subjects import SUBJECTS

ROOT = Path(__file__).resolve().parents[2]


def run() -> int:
    """Run what the command line asks for; returns 1 if any wrong mutant was verified."""
    parser = argparse.ArgumentParser(prog="make mutation", description=__doc__)
    names = [subject.name for subject in SUBJECTS]
    parser.add_argument("--models", default=",".join(names), help="of " + ", ".join(names))
    parser.add_argument("--formats", default="onnx,torchscript")
    parser.add_argument("--per-kind", type=int, default=2, help="mutants of each kind of each artifact, at most")
    parser.add_argument("--kinds", default=",".join(KINDS), help="of mutants: " + ", ".join(KINDS).replace("%", "%%"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=ROOT / ".mutation", help="keeps exports and results")
    parser.add_argument("--write", action="store_true", help="write docs/mutation.md and docs/validation.md")
    given = parser.parse_args()
    if unknown := set(given.models.split(",")) - set(names):
        parser.error(f"no such models: {', '.join(sorted(unknown))}")
    results = _results(
        Harness(given.folder, given.per_kind, given.seed, given.kinds.split(",")),
        given.models.split(","),
        given.formats.split(","),
    )
    survivors = [result for result in results if result.verdict == "survived"]
    wrong = sum(result.verdict in ("survived", "refused") for result in results)
    for result in survivors:
        print(f"survived: {result.subject} {result.artifact}: {result.kind}: {result.place}: {result.detail}")
    percentage = 100 * (wrong - len(survivors)) / wrong if wrong else 0.0
    print(f"{wrong - len(survivors)} of {wrong} wrong mutants refused: {percentage:.1f} %")
    if given.write:
        write_tables(results, ROOT / "docs/mutation.md")
        write_summary(results, ROOT / "docs/validation.md")
    return 1 if survivors or not wrong else 0


def _results(harness: Harness, models: list[str], formats: list[str]) -> list[Result]:
    results: list[Result] = []
    with harness.running():
        for subject in SUBJECTS:
            for name in subject.formats:
                if subject.name not in models or name not in formats:
                    continue
                started = time.monotonic()
                found = list(harness.mutate(subject, name))
                results += found
                counts = {verdict: sum(one.verdict == verdict for one in found) for verdict in ("refused", "survived")}
                print(
                    f"{subject.name} {name}: {len(found)} mutants, {counts['refused']} refused, "
                    f"{counts['survived']} survived, {time.monotonic() - started:.0f} s",
                    flush=True,
                )
    return results


if __name__ == "__main__":
    sys.exit(run())
