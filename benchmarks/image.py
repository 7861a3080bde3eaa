"""What an image holds by package, and the size of each of its layers."""

from __future__ import annotations

import gzip
import json
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import docker
from docker.errors import DockerException

__all__ = ["image"]

BASE: Final = "python:3.11-slim-bookworm"
SMALLEST_BYTES: Final = 5_000_000
"""Packages below this are added up in one row."""

_LISTING: Final = """
import importlib.metadata, json, os, sys
packages, seen = {}, set()
for one in importlib.metadata.distributions():
    size = 0
    folders = set()
    for file in one.files or ():
        path = str(one.locate_file(file))
        folders.add(os.path.dirname(path))
        if os.path.isfile(path) and path not in seen:
            seen.add(path)
            size += os.lstat(path).st_size
    for folder in folders:
        cache = os.path.join(folder, "__pycache__")
        for path in (os.path.join(cache, name) for name in (os.listdir(cache) if os.path.isdir(cache) else ())):
            if path not in seen:
                seen.add(path)
                size += os.lstat(path).st_size
    packages[one.metadata["Name"]] = [one.version, size]
paths = (os.path.join(folder, name) for folder, _, names in os.walk("/opt/hfexport") for name in names)
other = sum(os.lstat(path).st_size for path in paths if path not in seen)
modules = [name for folder, _, names in os.walk("/opt/hfexport/lib") for name in names if name.endswith(".py")]
compiled = [name for folder, _, names in os.walk("/opt/hfexport/lib") for name in names if name.endswith(".pyc")]
print(json.dumps({"packages": packages, "other": other, "modules": len(modules), "compiled": len(compiled)}))
"""


def image(name: str) -> dict[str, Any]:
    """Return packages by size and layers, those of the base left out; or why not, under `failed`."""
    try:
        client = docker.from_env(timeout=900)
        found = client.images.get(name)
        base = client.images.get(BASE)
        command = ["-I", "-c", _LISTING]
        python = ["/opt/hfexport/bin/python"]
        said = client.containers.run(str(found.id), command, entrypoint=python, remove=True, network_mode="none")
    except DockerException as error:
        return {"failed": f"{name}: {error}"}
    listing = json.loads(said)
    known = set(base.attrs["RootFS"]["Layers"])
    layers = [layer for layer in _layers(found, known) if layer["bytes"] > 10_000]
    for layer, holds in zip(layers, ("bytecode of Python", "torch", "the other packages", "hfexport"), strict=True):
        layer["holds"] = holds
    return {"architecture": found.attrs["Architecture"], "layers": layers, **_grouped(listing)}


def _grouped(listing: Mapping[str, Any]) -> dict[str, Any]:
    sizes = sorted(listing["packages"].items(), key=lambda item: (-item[1][1], item[0]))
    large = [{"name": f"{name} {version}", "bytes": size} for name, (version, size) in sizes if size >= SMALLEST_BYTES]
    small = [size for _, (_, size) in sizes if size < SMALLEST_BYTES]
    large.append({"name": f"{len(small)} smaller ones", "bytes": sum(small)})
    large.append({"name": "files of no package", "bytes": listing["other"]})
    return {"packages": large, "modules": listing["modules"], "compiled": listing["compiled"]}


def _layers(found: Any, known: set[str]) -> list[dict[str, Any]]:
    """Return the digest of each layer that is not `known`, and its size unpacked and as gzip at the level that registries get."""
    with tempfile.TemporaryDirectory(prefix="hfexport-image-") as folder:
        archive = Path(folder) / "image.tar"
        with archive.open("wb") as file:
            for chunk in found.save():
                file.write(chunk)
        with tarfile.open(archive) as saved:
            names = json.loads(_read(saved, "manifest.json"))[0]["Layers"]
            pairs = [pair for pair in zip(found.attrs["RootFS"]["Layers"], names, strict=True) if pair[0] not in known]
            sizes = [(digest, *_sizes(saved, name)) for digest, name in pairs]
    return [{"digest": digest, "bytes": size, "compressed_bytes": packed} for digest, size, packed in sizes]


def _read(saved: tarfile.TarFile, name: str) -> bytes:
    file = saved.extractfile(name)
    assert file is not None
    return file.read()


def _sizes(saved: tarfile.TarFile, name: str) -> tuple[int, int]:
    data = _read(saved, name)
    return len(data), len(gzip.compress(data, compresslevel=6, mtime=0))
