"""The benchmarks' figures: what is compared with what, and that a contender without figures is named with its reason."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import copying  # noqa: E402  of benchmarks
from cases import CASES, Case  # noqa: E402
from comparison import Entry, compare, reason  # noqa: E402
from peers import CONTENDERS, REFERENCE, Contender, Places  # noqa: E402
from process_tree import measure  # noqa: E402
from results import load  # noqa: E402
from stages import TRACED, read_processes  # noqa: E402
from tables import COLD, page, ratio  # noqa: E402

CONTEXT = {"machine": {"architecture": "x", "processor": "y", "cores": 2, "memory_bytes": 2**30}, "versions": {}}


def entry(*walls: float, call: int = 1, peak: int = 100) -> Entry:
    return {"call": call, "wall_s": list(walls), "processor_s": list(walls), "peak_bytes": peak}


def test_ratio_is_the_median_of_runs_that_followed_each_other() -> None:
    entries = {COLD: entry(1.0, 2.0, 9.0), REFERENCE: entry(2.0, 4.0, 3.0)}
    assert ratio(entries, COLD, REFERENCE, "wall_s") == 0.5
    assert ratio(entries, COLD, REFERENCE, "peak_bytes") == 1.0


@pytest.mark.parametrize("other", [entry(1.0, call=2), {"call": 1, "failed": "no"}, None])
def test_figures_of_another_call_are_not_compared(other: Entry | None) -> None:
    entries = {COLD: entry(1.0)} | ({REFERENCE: other} if other else {})
    assert ratio(entries, COLD, REFERENCE, "wall_s") is None


def test_missed_goals_and_failed_contenders_are_in_the_document() -> None:
    entries = {COLD: entry(3.0), REFERENCE: entry(4.0), "transformers.onnx": {"call": 1, "failed": "not | installed"}}
    text = page({"context": CONTEXT, "comparison": {"bert-base": entries}})
    assert "| bert-base | hfexport cold, wall time to optimum-cli | 0.75 | 0.70 | no |" in text
    assert "| bert-base | hfexport cold, wall time to transformers.onnx |  | 1.00 | no figure |" in text
    assert "| transformers.onnx | failed: not \\| installed |" in text
    assert "| transformers.exporters | not measured |" in text


def test_the_document_is_that_of_the_results() -> None:
    assert (ROOT / "docs" / "performance.md").read_text(encoding="utf-8") == page(load())


def test_a_contender_that_fails_or_is_absent_takes_no_turn(tmp_path: Path) -> None:
    case = Case("example", "example", None, "default", "feature-extraction")
    script = "import pathlib, sys; pathlib.Path(sys.argv[1]).mkdir()"

    def runs(code: str, python: str = sys.executable) -> Contender:
        def command(case: Case, places: Places) -> list[str]:
            return [python, "-c", code, str(places.output)]

        return Contender(code, "", Path(python), (), command)

    works, fails, absent = runs(script), runs("raise ValueError('no such task')"), runs("", "/absent/bin/python")
    entries = compare(case, [works, fails, absent], runs=2, call=1, folder=tmp_path)
    assert len(entries[script]["wall_s"]) == len(entries[script]["processor_s"]) == 2
    assert entries[fails.name]["failed"] == "exit code 1: ValueError: no such task"
    assert "absent is not installed" in entries[""]["failed"]


def test_every_case_names_what_each_contender_exports(tmp_path: Path) -> None:
    places = Places(tmp_path / "in", tmp_path / "out", tmp_path / "cache")
    for case in CASES:
        for contender in CONTENDERS:
            assert str(places.output) in contender.command(case, places)


def test_processor_time_of_children_counts_and_a_timeout_ends_the_group(tmp_path: Path) -> None:
    busy = "import time\nwhile time.process_time() < 0.3: pass"
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])"
    assert measure([sys.executable, "-c", nested], log=tmp_path / "log", memory=False).processor_s >= 0.3
    ended = measure(["sh", "-c", "sleep 60 & sleep 60"], log=tmp_path / "log", memory=False, timeout_s=0.2)
    assert ended.exit_code == -9
    assert "took longer" in reason(tmp_path / "log", ended.exit_code)


def test_speed_of_writing_is_compared_with_a_plain_copy() -> None:
    figures = {"size_bytes": 10**6, "wall_s": 2.0, "processor_s": 3.0, "peak_bytes": 2**20}
    speeds = {"written_bytes_per_s": 4e8, "copied_bytes_per_s": 10e8}
    rows = [
        *({"table": "layers", "name": str(count), **figures, **speeds, "wall_s": count} for count in (2, 4, 8)),
        {"table": "sizes", "name": "one", **figures, **speeds},
        {"table": "sizes", "name": "two", "size_bytes": 0, "failed": "not run: no disk"},
    ]
    document = page({"context": CONTEXT, "scaling": rows})
    assert "| one | 1 | 2.0 | 3.0 | 1 | 400 | 1000 | 0.40 |" in document
    assert "| two | 0 | failed: not run: no disk |  |  |  |  |  |" in document
    assert "| 8 | 1 | 8.0 | 3.0 | 1 |" in document
    assert "1.00 s for each layer and 0.0 s besides" in document


def test_stages_of_each_process_are_sampled_and_shown(tmp_path: Path) -> None:
    package = tmp_path / "hfexport" / "backends" / "onnx"
    package.mkdir(parents=True)
    (package / "capture.py").write_text("import time\ndef run():\n    time.sleep(0.3)\n")
    code = (
        f"import os, runpy; capture = runpy.run_path({str(package / 'capture.py')!r}); pid = os.fork(); capture['run'](); "
        "pid and os.waitpid(pid, 0); os._exit(0)"
    )
    samples = tmp_path / "samples"
    env = {"PYTHONPATH": str(TRACED), "TZ": f"stages:{samples}"}
    assert measure([sys.executable, "-c", code], log=tmp_path / "log", env=env, memory=False).exit_code == 0
    processes = read_processes(samples)
    assert [process["role"] for process in processes] == ["command line", "reference"]
    for process in processes:
        (capture,) = (stage for stage in process["stages"] if stage["name"] == "capture")
        assert 0.05 < capture["wall_s"] <= process["end_s"]
    ways = {
        "hfexport cold": {"wall_s": 5.0, "processor_s": 6.0, "processes": processes},
        "hfexport warm": {"failed": "no cache"},
    }
    document = page({"context": CONTEXT, "stages": {"imports_s": 2.0, "cases": {"minilm": ways}}})
    assert "| | capture | " in document
    assert "imports alone are 40% of the wall time" in document
    assert "Not measured: no cache" in document


def test_imports_are_in_the_document_with_a_cold_cache() -> None:
    rows = [
        {"name": "`--help`", "wall_s": 0.05, "goal_s": 0.5},
        {"name": "import of torch", "wall_s": 1.2, "cold_s": 3.4},
    ]
    document = page({"context": CONTEXT, "startup": rows})
    assert "| `--help` | 0.05 | 0.5 |" in document
    assert "| import of torch | 1.20 | 3.40 |" in document


def test_writing_and_hashing_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "SIZE_BYTES", 2**24)
    rows = copying.copying(tmp_path, 1)
    assert len(rows) == 5 and all(row["wall_s"] > 0 for row in rows)
    assert list(tmp_path.iterdir()) == []
    assert "## Writing weights" in page({"context": CONTEXT, "copying": rows})


def test_variants_are_compared_with_the_files_that_exist() -> None:
    times = {"plain": [[10.0, 20.0]], "int8": [[4.0, 6.0]], "fused": [[9.0, 19.0]]}
    row = {"calls": [[1, 32, 0], [8, 128, 0]], "milliseconds": times, "failed": {"Optimum, O2": "not | installed"}}
    document = page({"context": CONTEXT, "variants": {"minilm": row}})
    assert "| int8 to plain, goal at most 0.5 | 0.40 | 0.30 |" in document
    assert "fused to Optimum" not in document
    assert "| Optimum, O2 | failed: not \\| installed | |" in document
