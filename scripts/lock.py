"""Write and check requirements/*.txt: every dependency at one version, with the hashes of its files.

    make lock                      # keep the versions that still fit pyproject.toml
    make lock ARGS=--upgrade       # use the newest versions that fit
    python scripts/lock.py --check # needs no network; part of `make check`

Torch is not in the locks but in requirements/torch.txt. It comes from an index of its own, with one file for each kind
of accelerator, and is installed first, by hash. When the version changes, copy the hashes from that index's page by
hand. Torch's dependencies are in the locks. No lock names an index, and no package name is looked up in two indexes.

requirements/wheels-arm64.txt proves that the image can be built for arm64: it has the wheel that pip takes there for every
package of the image. pip is asked for wheels of that platform and with the locks' hashes, so `make lock` fails if there is none.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
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

IMAGE_LOCKS: Final = ("runtime", "build")
"""Locks of the packages that the image is built from, besides torch."""

IMAGE_PYTHON: Final = "3.11"
ARM64_WHEELS: Final = "requirements/wheels-arm64.txt"
_ARM64_HEADER: Final = (
    "# Written by `make lock`: the wheel of every package of the image for linux/arm64 and its Python. Do not edit.\n"
)
_ARM64_PLATFORMS: Final = (*(f"manylinux_2_{minor}_aarch64" for minor in range(36, 16, -1)), "manylinux2014_aarch64")
"""Platforms of wheels that Debian bookworm, with glibc 2.36, takes on arm64."""
_WHEEL: Final = re.compile(r"^(?P<file>\S+\.whl) --hash=(?P<hash>sha256:[0-9a-f]{64})$", re.MULTILINE)

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
        write_arm64_wheels(torch_index)


def write_arm64_wheels(torch_index: str) -> None:
    """Write `ARM64_WHEELS` as pip resolves the locks for that platform, from wheels alone; nothing is installed.

    Where torch's index is out of reach, torch's line stays; `check` tells whether it still fits.
    """
    path = ROOT / ARM64_WHEELS
    lines = [line for name in IMAGE_LOCKS for line in _resolve_for_arm64(["--requirement", f"requirements/{name}.txt"])]
    try:
        lines += _resolve_for_arm64(["--retries", "1", "--index-url", torch_index, "--requirement", TORCH])
    except subprocess.CalledProcessError:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        lines += [line for line in text.splitlines() if line.startswith("torch-")]
    path.write_text(_ARM64_HEADER + "".join(f"{line}\n" for line in sorted(lines)), encoding="utf-8")


def _resolve_for_arm64(options: list[str]) -> list[str]:
    command = ["-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed", "--no-deps", "--require-hashes"]
    platform = ["--only-binary", ":all:", "--implementation", "cp", "--python-version", IMAGE_PYTHON]
    platform += [part for one in _ARM64_PLATFORMS for part in ("--platform", one)]
    with tempfile.TemporaryDirectory(prefix="hfexport-lock-") as folder:
        report = Path(folder) / "report.json"
        target = ["--target", str(Path(folder) / "none"), "--report", str(report)]
        _run([sys.executable, *command, *platform, *target, *options], dict(os.environ))
        found = [one["download_info"] for one in json.loads(report.read_text(encoding="utf-8"))["install"]]
    hashes = [one["archive_info"]["hashes"]["sha256"] for one in found]
    files = [unquote(one["url"].rpartition("/")[2]) for one in found]
    return [f"{file} --hash=sha256:{digest}" for file, digest in zip(files, hashes, strict=True)]


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
    return problems + _arm64_problems((root / ARM64_WHEELS).read_text(encoding="utf-8"), texts)


def _arm64_problems(wheels: str, texts: dict[str, str]) -> list[str]:
    """List the packages of the image without a wheel for arm64 that has the pinned version and a hash of the lock."""
    problems = []
    found: dict[str, tuple[Version, str, str]] = {}
    for match in _WHEEL.finditer(wheels):
        try:
            name, version, _, tags = parse_wheel_filename(match["file"])
        except InvalidWheelFilename as error:
            problems.append(f"wheels-arm64.txt: {error}")
            continue
        if not any(tag.platform == "any" or tag.platform in _ARM64_PLATFORMS for tag in tags):
            problems.append(f"wheels-arm64.txt: {match['file']} is not for arm64")
        found[name] = version, match["file"], match["hash"]
    for lock in (*IMAGE_LOCKS, "torch"):
        pins = _pins(texts[lock])
        for key, entry in _entries(texts[lock]).items():
            package = canonicalize_name(key.partition(" ;")[0])
            wheel = found.get(package)
            if wheel is None or wheel[0].public != pins[key].public:
                problems.append(f"{package} {pins[key]} has no wheel for arm64 in wheels-arm64.txt; run `make lock`")
            elif f"--hash={wheel[2]}" not in entry:
                problems.append(f"the hash of {wheel[1]} is not in {lock}.txt; run `make lock`")
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
