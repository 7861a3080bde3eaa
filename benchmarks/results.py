"""Results of the benchmarks as JSON, from which docs/performance.md is written: benchmarks/results.json."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any, Final

from peers import CONTENDERS

__all__ = ["RESULTS", "context", "load", "next_call", "save", "source"]

ROOT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = ROOT / "benchmarks" / "results.json"


def load(path: Path = RESULTS) -> dict[str, Any]:
    """Return the stored results by section; empty if there are none."""
    if not path.exists():
        return {}
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return results


def save(results: dict[str, Any], path: Path = RESULTS) -> None:
    """Write the results, sections in order of name, so that a section that was not measured stays as it is."""
    path.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def next_call(results: dict[str, Any]) -> int:
    """Return a number for this call; only figures of one call are compared with each other."""
    results["calls"] = int(results.get("calls", 0)) + 1
    return int(results["calls"])


def context() -> dict[str, Any]:
    """Return the machine and the versions of every installed contender."""
    return {
        "machine": {
            "architecture": platform.machine(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        },
        "versions": {peer.name: peer.versions() for peer in CONTENDERS if peer.missing() is None},
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def source() -> str:
    """Return the first digits of the Git tree of src/, with a mark if files in it were changed since."""
    tree = _git("rev-parse", "--short=10", "HEAD:src")
    return f"{tree}, changed" if _git("status", "--porcelain", "src") else tree


def _git(*arguments: str) -> str:
    result = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    return result.stdout.strip() or ("" if arguments[0] == "status" else "unknown")
