"""Run the tests and report the branch coverage of src/hfexport, child processes included.

    python scripts/coverage_of_tests.py                  # all tests that `make test` runs
    python scripts/coverage_of_tests.py -n 2 tests/unit  # arguments of pytest

Children of hfexport get an environment without the variables by which coverage is started in them. A `.pth` file starts it
instead, in every interpreter of this environment while the tests run. Not counted are children that are killed, and the
confined exporting process, which cannot write outside its staging folder; its code also runs in the process of the tests.

Writes `.coverage-data/summary.md`, a table for the workflow's job summary. Exits with 2 if the coverage is below
`fail_under` in pyproject.toml, and with pytest's exit code if a test fails.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = ROOT / ".coverage-data"


def main() -> int:
    """Run the tests and write the reports; return the exit code."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(exist_ok=True)
    with _started_everywhere():
        tests = subprocess.run([sys.executable, "-m", "pytest", *sys.argv[1:]], cwd=ROOT, check=False).returncode
    _coverage("combine", "--quiet", str(FOLDER))
    table = _coverage("report", "--format=markdown", "--fail-under=0", "--skip-covered", quiet=True)
    (FOLDER / "summary.md").write_text(f"## Branch coverage of src/hfexport\n\n{table}", encoding="utf-8")
    enough = subprocess.run(_command("report", "--skip-covered"), cwd=ROOT, check=False).returncode
    return tests or enough


@contextlib.contextmanager
def _started_everywhere() -> Iterator[None]:
    """Start coverage in every interpreter of this environment."""
    settings = FOLDER / "settings.toml"
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text[text.index("[tool.coverage.run]") : text.index("[tool.coverage.report]")]
    settings.write_text(f"{section}data_file = '{FOLDER / 'data'}'\n", encoding="utf-8")
    start = Path(sysconfig.get_path("purelib"), "hfexport-coverage.pth")
    start.write_text(
        f"import os, coverage; os.environ['COVERAGE_PROCESS_START'] = {str(settings)!r}; coverage.process_startup()\n",
        encoding="utf-8",
    )
    try:
        yield
    finally:
        start.unlink()


def _command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "coverage", name, "--data-file", str(FOLDER / "data"), *arguments]


def _coverage(*arguments: str, quiet: bool = False) -> str:
    done = subprocess.run(
        _command(*arguments), cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE if quiet else None
    )
    return done.stdout or ""


if __name__ == "__main__":
    sys.exit(main())
