"""Run the tests and report the branch coverage of src/hfexport, child processes included.

    python scripts/coverage_of_tests.py --neuron         # the tests of `make test` and those of `make neuron-test`
    python scripts/coverage_of_tests.py                  # the tests of `make test` alone
    python scripts/coverage_of_tests.py -n 2 tests/unit  # arguments of pytest

Children of hfexport get an environment without the variables by which coverage is started in them. A `.pth` file starts it
instead, in every interpreter of this environment while the tests run, and in the Neuron worker's interpreters. The data
files are in /dev/shm until the tests end, since the confined exporting process can write there, but not into this folder.
Children that are killed are not counted.

Writes `.coverage-data/summary.md`, a table for the workflow's job summary. Exits with 2 if the coverage is below
`fail_under` in pyproject.toml, and with pytest's exit code if a test fails.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from coverage import CoverageData

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = ROOT / ".coverage-data"
SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108
RUNTIME_PACKAGE: Final = "hfexport_neuron"
NEURON_ENVIRONMENTS: Final = (".venv-neuron", ".venv-neuronx")

START: Final = """\
import os, sys
sys.path.append({packages!r})
import coverage
sys.path.remove({packages!r})
os.environ["COVERAGE_PROCESS_START"] = {settings!r}
coverage.process_startup()
def save_and_exit(code, exit=os._exit, current=coverage.Coverage.current):
    try:
        if current() is not None:
            current().save()
    finally:
        exit(code)
os._exit = save_and_exit
"""
"""Run at the start of every interpreter. Coverage's own patch of `os._exit` would also save the data of the process that
a child was forked from, once for each fork."""


def main(arguments: Sequence[str]) -> int:
    """Run the tests and write the reports; return the exit code."""
    with_neuron = "--neuron" in arguments
    options = [argument for argument in arguments if argument != "--neuron"]
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(exist_ok=True)
    place = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="hfexport-coverage-", dir=place) as parts:
        with _started_everywhere(Path(parts)):
            tests = _pytest(*options)
            if with_neuron:
                tests = _pytest(*options, "tests/neuron") or tests
        _coverage("combine", "--quiet", parts)
    _count_copies()
    table = _coverage("report", "--format=markdown", "--fail-under=0", "--skip-covered", quiet=True)
    (FOLDER / "summary.md").write_text(f"## Branch coverage of src/hfexport\n\n{table}", encoding="utf-8")
    enough = subprocess.run(_command("report", "--skip-covered"), cwd=ROOT, check=False).returncode
    return tests or enough


@contextlib.contextmanager
def _started_everywhere(parts: Path) -> Iterator[None]:
    """Start coverage in every interpreter of hfexport's environments, with its data files in `parts`."""
    settings, start, packages = parts / "settings.toml", parts / "start.py", parts / "packages"
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text[text.index("[tool.coverage.run]") : text.index("[tool.coverage.report]")]
    # By folder, since the Neuron worker's package has another name in its own interpreter.
    sources = f"source = ['{ROOT / 'src' / 'hfexport'}']\nsource_pkgs = ['{RUNTIME_PACKAGE}']"
    section = section.replace('source_pkgs = ["hfexport"]', sources)
    settings.write_text(f"{section}data_file = '{parts / 'data'}'\n", encoding="utf-8")
    packages.mkdir()
    installed = Path(sysconfig.get_path("purelib"))
    (packages / "coverage").symlink_to(installed / "coverage")
    start.write_text(START.format(packages=str(packages), settings=str(settings)), encoding="utf-8")
    folders = [installed]
    for environment in NEURON_ENVIRONMENTS:
        folders += ROOT.glob(f"{environment}/lib/python3.*/site-packages")
    lines = [folder / "hfexport-coverage.pth" for folder in folders]
    try:
        for line in lines:
            # Only while the file is there, should this program be killed before it removes the line.
            line.write_text(f"import os; p = {str(start)!r}; os.path.exists(p) and exec(open(p).read(), {{}})\n")
        yield
    finally:
        for line in lines:
            line.unlink(missing_ok=True)


def _count_copies() -> None:
    """Count the code that ran as `RUNTIME_PACKAGE` in Neuron artifacts for the files that it is copied from.

    Copies in a cache of the Hub, where files are named after their hashes, are left out.
    """
    package = ROOT / "src/hfexport"
    data = CoverageData(str(FOLDER / "data"))
    data.read()
    arcs: dict[str, set[tuple[int, int]]] = {}
    for name in data.measured_files():
        path = Path(name)
        if path.parent.name == RUNTIME_PACKAGE:
            path = package / "runtime" / {"__init__.py": "neuron.py"}.get(path.name, path.name)
        if path.is_relative_to(package):
            arcs.setdefault(str(path), set()).update(data.arcs(name) or ())
    data.erase()
    data.add_arcs(arcs)
    data.touch_files(arcs)
    data.close()


def _pytest(*arguments: str) -> int:
    command = [sys.executable, "-m", "pytest", *arguments]
    environment = {**os.environ, "HFEXPORT_REQUIRE_NEURON": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def _command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "coverage", name, "--data-file", str(FOLDER / "data"), *arguments]


def _coverage(*arguments: str, quiet: bool = False) -> str:
    done = subprocess.run(
        _command(*arguments), cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE if quiet else None
    )
    return done.stdout or ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
