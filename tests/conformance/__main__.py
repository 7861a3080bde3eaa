"""Runs the grid: in parallel, one line a case, taking up where an earlier run of the same code stopped.

    make conformance                          # all, and docs/coverage.md
    make conformance ARGS="-k bert --jobs 4"  # those whose name holds a word; writes no document
    make conformance ARGS=--fp16              # half precision, and its section of docs/coverage.md

A result is kept under .conformance/ for as long as the code, the checkpoints and the versions stay as they are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.metadata import version
from pathlib import Path
from typing import Any

from conformance.cases import CASES, GUIDE, Case, attempt
from conformance.coverage import coverage_page, with_half_precision
from hfexport._internal.forkserver import FORK_SERVERS, fork_servers
from hfexport._internal.workers import child_environment

ROOT = Path(__file__).resolve().parent.parent.parent
KEPT = ROOT / ".conformance"
PAGE = ROOT / "docs" / "coverage.md"
PACKAGES = ("torch", "transformers", "onnx", "onnxruntime", "onnxscript", "onnx-ir")
CASES_A_PROCESS = 60
"""After so many, on average, workers are replaced: what torch caches for each model adds up."""


def main() -> int:
    """Run what is asked for; 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-k", dest="words", action="append", default=[], help="only cases whose name holds this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes that run cases")
    parser.add_argument("--guide", action="store_true", help="only the guide's pairs")
    parser.add_argument("--fp16", action="store_true", help="only half precision")
    parser.add_argument("--fresh", action="store_true", help="run again what an earlier run has proved")
    arguments = parser.parse_args()
    chosen = [
        case
        for case in CASES
        if all(word in case.name for word in arguments.words)
        and (not arguments.guide or ((case.model_type, case.task) in GUIDE and case.is_plain))
        and (not arguments.fp16 or case.dtype == "fp16")
    ]
    results: dict[str, dict[str, Any]] = {}
    with fork_servers(child_environment(os.environ)) as folder:
        os.environ[FORK_SERVERS] = folder
        for number, (case, result) in enumerate(_results(chosen, arguments.jobs, fresh=arguments.fresh), start=1):
            results[case.name] = result
            print(f"[{number}/{len(chosen)}] {_line(case, result)}", flush=True)
    missing = sorted(GUIDE - {(case.model_type, case.task) for case in CASES})
    failed = [name for name, result in results.items() if not result["passed"]]
    if not arguments.words and not arguments.guide and not failed:
        half = arguments.fp16
        page = with_half_precision(PAGE.read_text("utf-8"), results) if half else coverage_page(results, missing)
        PAGE.write_text(page, encoding="utf-8")
    if results:
        median = statistics.median(result["seconds"] for result in results.values())
        print(f"median {median:.1f} s a case, {len(missing)} of the guide's {len(GUIDE)} pairs have no export config")
    for name in failed:
        print(f"FAILED {name}: {results[name]['problem']}")
    print(f"{len(results) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


def _results(cases: Sequence[Case], jobs: int, *, fresh: bool) -> Iterator[tuple[Case, dict[str, Any]]]:
    """Each case with its result, as they come."""
    KEPT.mkdir(exist_ok=True)
    code = _fingerprint()
    to_run = []
    for case in cases:
        kept = _kept(case, code)
        if kept.is_file() and not fresh:
            yield case, json.loads(kept.read_text(encoding="utf-8"))
        else:
            to_run.append(case)
    context = multiprocessing.get_context("spawn")
    # A pool for each part, since one that replaces its workers by itself (`max_tasks_per_child`) may wait for ever:
    # https://github.com/python/cpython/issues/115634
    for start in range(0, len(to_run), jobs * CASES_A_PROCESS):
        part = to_run[start : start + jobs * CASES_A_PROCESS]
        with ProcessPoolExecutor(jobs, mp_context=context) as pool:
            running = {pool.submit(attempt, case): case for case in part}
            for future in as_completed(running):
                case, result = running[future], future.result()
                if result["passed"]:
                    _kept(case, code).write_text(json.dumps(result), encoding="utf-8")
                yield case, result


def _kept(case: Case, code: str) -> Path:
    return KEPT / (hashlib.sha256(f"{code} {case.name}".encode()).hexdigest()[:32] + ".json")


def _fingerprint() -> str:
    """Changes with the code, the tiny checkpoints, the cases and the versions."""
    digest = hashlib.sha256(" ".join(version(package) for package in PACKAGES).encode())
    folders = ("src/hfexport", "tests/support/tiny")
    for path in sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        digest.update(path.read_bytes())
    digest.update((ROOT / "tests/conformance/cases.py").read_bytes())
    return digest.hexdigest()


def _line(case: Case, result: dict[str, Any]) -> str:
    if not result["passed"]:
        return f"FAILED {case.name}: {result['problem'].splitlines()[0] if result['problem'] else ''}"
    if result["refusal"]:
        return f"refused {case.name}: {result['refusal'].splitlines()[0]}"
    parts = [
        f"{artifact['format']} {artifact['max_abs']:.1e}" + (" fixed" if artifact["fixed_sizes"] else "")
        for artifact in result["artifacts"]
    ]
    return f"passed {case.name}: {', '.join(parts)}, {result['seconds']:.1f} s"


if __name__ == "__main__":
    sys.exit(main())
