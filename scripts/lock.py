"""Write and check requirements/*.txt: every dependency at one version, with the hashes of its files.

    make lock                      # keep the versions that still fit pyproject.toml
    make lock ARGS=--upgrade       # use the newest versions that fit
    python scripts/lock.py --check # needs no network; part of `make check`

Torch is not in the locks but in requirements/torch.txt. It comes from an index of its own, with one file for each kind
of accelerator, and is installed first, by hash. When the version changes, copy the hashes from that index's page by
hand. Torch's dependencies are in the locks. No lock names an index, and no package name is looked up in two indexes.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Final

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT: Final = Path(__file__).resolve().parent.parent
TORCH: Final = "requirements/torch.txt"
TORCH_INDEX: Final = "https://download.pytorch.org/whl/cpu"

LOCKS: Final = {
    "runtime": (),
    "dev": ("--extra", "dev", "--constraint", "requirements/runtime.txt"),
    "build": (),
    "example": ("--extra", "example", "--constraint", "requirements/runtime.txt"),
    "docs": (),
}
"""Arguments for pip-compile in addition to `_COMMON`, by file name in requirements/, in the order of compilation."""

_COMMON: Final = (
    *("--quiet", "--generate-hashes", "--strip-extras", "--newline", "lf", "--unsafe-package", "torch"),
    *("--no-emit-index-url", "--no-emit-find-links", "--no-emit-trusted-host", "--no-emit-options"),
)
_HEADER: Final = "# Written by `make lock` from pyproject.toml. Do not edit.\n"
_PIN: Final = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)(?:\s*;\s*(?P<marker>[^\\]+))?")


def main() -> int:
    """Write or check the locks; return 1 if there are problems."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare the locks with pyproject.toml without writing")
    parser.add_argument("--upgrade", action="store_true", help="use the newest versions that fit")
    parser.add_argument("--torch-index", default=TORCH_INDEX, help="where torch's CPU files are (default: %(default)s)")
    arguments = parser.parse_args()
    if not arguments.check:
        write(upgrade=arguments.upgrade, torch_index=arguments.torch_index)
    problems = check(ROOT)
    for problem in problems:
        print(f"lock: {problem}", file=sys.stderr)
    return 1 if problems else 0


def write(*, upgrade: bool, torch_index: str) -> None:
    """Compile every lock in `LOCKS`, with torch's CPU wheel available so that no CUDA package is pulled in."""
    environment = {**os.environ, "CUSTOM_COMPILE_COMMAND": "make lock"}
    with tempfile.TemporaryDirectory(prefix="hfexport-lock-") as folder:
        torch = Path(folder) / "torch.txt"  # without hashes: with one, pip-compile requires them everywhere
        torch.write_text("".join(f"{name}=={version}\n" for name, version in _pins((ROOT / TORCH).read_text()).items()))
        wheels, output, build = Path(folder) / "wheels", Path(folder) / "lock.txt", Path(folder) / "build.in"
        build.write_text("\n".join(str(requirement) for requirement in _build_requirements(ROOT)), encoding="utf-8")
        download = (
            "download",
            "--quiet",
            "--no-deps",
            "--require-hashes",
            "--retries",
            "1",
            "--dest",
            wheels,
            "--requirement",
            TORCH,
        )
        _run([sys.executable, "-m", "pip", *download, "--index-url", torch_index], environment)
        for name, options in LOCKS.items():
            lock = ROOT / f"requirements/{name}.txt"
            output.write_text(lock.read_text(encoding="utf-8") if lock.exists() else "", encoding="utf-8")
            source = {"build": build, "docs": ROOT / "requirements/docs.in"}.get(name, "pyproject.toml")
            place = ("--find-links", wheels, "--constraint", torch, "--output-file", output, source)
            more = ("--upgrade",) if upgrade else ()
            _run([sys.executable, "-m", "piptools", "compile", *_COMMON, *options, *more, *place], environment)
            compiled = output.read_text(encoding="utf-8").replace(f"-r {build}", "pyproject.toml (build-system)")
            compiled = compiled.replace(f"-r {ROOT}/", "-r ")
            entries = _entries(compiled)
            if name == "example":
                wanted = {canonicalize_name(requirement.name) for requirement in _declared(ROOT, "example")}
                entries = {key: text for key, text in entries.items() if key in wanted}
            lock.write_text(_HEADER + "".join(entries.values()), encoding="utf-8")


def check(root: Path) -> list[str]:
    """List the problems of the locks under `root`: missing hashes, and conflicts with pyproject.toml or each other."""
    problems = []
    names = (*LOCKS, "neuron", "neuron-inf1", "torch")
    texts = {name: (root / f"requirements/{name}.txt").read_text(encoding="utf-8") for name in names}
    pins = {name: _pins(text) for name, text in texts.items()}
    needs = {
        "runtime": _declared(root, None),
        "dev": _declared(root, None) + _declared(root, "dev"),
        "build": _build_requirements(root),
        "example": _declared(root, "example"),
        "docs": _listed(root / "requirements/docs.in"),
        "neuron": _listed(root / "requirements/neuron.in"),
        "neuron-inf1": _listed(root / "requirements/neuron-inf1.in"),
    }
    problems += [
        f"torch.txt: {key} has no hash" for key, entry in _entries(texts["torch"]).items() if "--hash=" not in entry
    ]
    for name, requirements in needs.items():
        text = texts[name]
        problems += [f"{name}.txt: {problem}" for problem in _text_problems(text)]
        known = {**pins[name], **pins["torch"]}
        problems += [f"{name}.txt: {problem}" for problem in _unmet(requirements, known)]
    for package in sorted(pins["runtime"].keys() & pins["dev"].keys()):
        if pins["runtime"][package] != pins["dev"][package]:
            problems.append(
                f"{package} is {pins['runtime'][package]} in runtime.txt, {pins['dev'][package]} in dev.txt"
            )
    missing = sorted(pins["runtime"].keys() - pins["dev"].keys())
    if missing:
        problems.append(f"dev.txt lacks {', '.join(missing)} of runtime.txt")
    return problems


def _text_problems(text: str) -> list[str]:
    problems = [f"{key} has no hash" for key, entry in _entries(text).items() if "--hash=sha256:" not in entry]
    if re.search(r"https?://|file:|^\s*--(?!hash)", text, re.MULTILINE):
        problems.append("names a place to install from, or an option of pip")
    return problems


def _unmet(requirements: list[Requirement], pins: dict[str, Version]) -> list[str]:
    problems = []
    environment = {name: str(value) for name, value in default_environment().items()} | {"extra": ""}
    for requirement in requirements:
        key = _key(requirement.name, str(requirement.marker or ""))
        elsewhere = requirement.marker is not None and not requirement.marker.evaluate(dict(environment))
        if elsewhere and key not in pins:
            continue
        version = pins.get(key, pins.get(canonicalize_name(requirement.name)))
        if version is None:
            problems.append(f"{requirement} of pyproject.toml is not there; run `make lock`")
        elif not requirement.specifier.contains(version, prereleases=True):
            problems.append(
                f"{requirement.name} {version} does not fit `{requirement}` of pyproject.toml; run `make lock`"
            )
    return problems


def _declared(root: Path, extra: str | None) -> list[Requirement]:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = project["dependencies"] if extra is None else project["optional-dependencies"][extra]
    return [Requirement(text) for text in texts]


def _listed(path: Path) -> list[Requirement]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def _build_requirements(root: Path) -> list[Requirement]:
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    return [Requirement(item) for item in tomllib.loads(text)["build-system"]["requires"]]


def _entries(text: str) -> dict[str, str]:
    """Return the lines of each requirement, by `_key`; comments that belong to no requirement are left out."""
    entries: dict[str, str] = {}
    name = ""
    for line in text.splitlines(keepends=True):
        match = _PIN.match(line)
        if match is not None:
            name = _key(match["name"], match["marker"])
            entries[name] = line
        elif name and line.startswith(" "):
            entries[name] += line
        else:
            name = ""
    return entries


def _pins(text: str) -> dict[str, Version]:
    matches = (_PIN.match(line) for line in text.splitlines())
    return {_key(match["name"], match["marker"]): Version(match["version"]) for match in matches if match is not None}


def _key(name: str, marker: str | None) -> str:
    """Return the normalised name and the marker, if any: a lock may pin a package once for each Python version."""
    normalised = canonicalize_name(name)
    return f"{normalised} ; {marker.strip()}" if marker else normalised


def _run(command: list[str | Path], environment: dict[str, str]) -> None:
    subprocess.run(command, check=True, cwd=ROOT, env=environment)


if __name__ == "__main__":
    sys.exit(main())
