"""Install packages from an index of their own and their other dependencies from PyPI, never one name from both.

    PYTHON scripts/install_sdk.py INDEX requirements/neuron-inf1-sdk.txt

The packages and dependencies that INDEX has are downloaded from there. The files are then installed by their paths, so
pip uses its own index only for packages that INDEX lacks. Run this with the interpreter to install for, Python 3.8 or
newer; it needs only pip.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any

from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
INSTALLED_BEFORE = frozenset({"torch"})
"""Packages that are already installed by hash, from torch's own index."""


def main(index: str, listed: str) -> None:
    """Install the requirements in the file `listed`."""
    lines = [line.strip() for line in Path(listed).read_text(encoding="utf-8").splitlines()]
    pending = [Requirement(line) for line in lines if line and not line.startswith("#")]
    extras: dict[str, set[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, Path] = {}
        while pending:
            wanted = pending.pop()
            name = canonicalize_name(wanted.name)
            known = name in found and wanted.extras <= extras[name]
            if name in INSTALLED_BEFORE or known or not _has(index, name):
                continue
            extras[name] = extras.get(name, set()) | wanted.extras
            if name not in found:
                found[name] = _download(index, wanted, Path(folder, name))
            pending += [need for need in _needs(found[name]) if _applies(need, extras[name])]
        files = [
            str(path) + (f"[{','.join(sorted(extras[name]))}]" if extras[name] else "") for name, path in found.items()
        ]
        subprocess.run([*PIP, "install", *files], check=True)


def _has(index: str, name: str) -> bool:
    """Return whether an index has a project."""
    try:
        with urllib.request.urlopen(f"{index.rstrip('/')}/{name}/", timeout=60):  # noqa: S310
            return True
    except urllib.error.HTTPError as error:
        if error.code in (403, 404):
            return False
        raise


def _download(index: str, wanted: Requirement, folder: Path) -> Path:
    pin = f"{wanted.name}{wanted.specifier}"
    command = (*PIP, "download", "--no-deps", "--only-binary=:all:", "--index-url", index, "--dest", str(folder), pin)
    subprocess.run(command, check=True)
    (path,) = folder.iterdir()
    return path


def _needs(wheel: Path) -> list[Requirement]:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        fields = Parser().parsestr(archive.read(metadata).decode())
    return [Requirement(text) for text in fields.get_all("Requires-Dist") or ()]


def _applies(need: Requirement, extras: set[str]) -> bool:
    marker: Any = need.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


if __name__ == "__main__":
    main(*sys.argv[1:])
