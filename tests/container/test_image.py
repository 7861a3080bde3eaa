"""What the image is: its size, labels and entry point."""

from __future__ import annotations

import os

import docker
import pytest
from docker.models.images import Image

from container.runs import by_hand

pytestmark = pytest.mark.container

SIZE_LIMIT_BYTES = 1_000_000_000
CODE_LIMIT_BYTES = 10_000_000

WITHOUT_BYTECODE = """
import importlib.util, os

def used(path):
    # https://peps.python.org/pep-0552/: 1 after the magic number is a hash of the source that is not compared with it
    cached = importlib.util.cache_from_source(path)
    if not os.path.exists(cached):
        return False
    with open(cached, "rb") as file:
        return file.read(8) == importlib.util.MAGIC_NUMBER + bytes([1, 0, 0, 0])

paths = [os.path.join(folder, name) for folder, _, names in os.walk("/opt/hfexport/lib") for name in names if name.endswith(".py")]
print(*sorted(path for path in paths if not used(path)), sep=chr(10))
"""

IMPORTS = "import torch, transformers, onnxscript, onnxruntime, hfexport.run.pipeline"


def test_size_without_the_base(image: Image, base: Image) -> None:
    size_bytes = image.attrs["Size"] - base.attrs["Size"]
    assert size_bytes <= SIZE_LIMIT_BYTES, f"{size_bytes / 1e9:.2f} GB"


def test_a_release_that_changes_only_the_code_is_a_small_pull(image: Image) -> None:
    newest, packages, torch = [step["Size"] for step in image.history() if step["Size"] > 10_000][:3]
    assert newest <= CODE_LIMIT_BYTES, f"{newest / 1e6:.1f} MB"
    assert min(packages, torch) > 10 * newest


def test_nothing_is_compiled_at_the_first_start(engine: docker.DockerClient, image: Image, tmp_path) -> None:
    python = ["/opt/hfexport/bin/python"]
    result = by_hand(engine, image, tmp_path, ["-I", "-c", WITHOUT_BYTECODE], entrypoint=python)
    assert result.exit_code == 0, result.said
    assert [path for path in result.stdout.split() if "py312_" not in path] == []
    result = by_hand(engine, image, tmp_path, ["-I", "-v", "-c", IMPORTS], entrypoint=python)
    assert result.exit_code == 0, result.said
    loaded = [line for line in result.said.splitlines() if line.startswith("# code object from ")]
    assert len(loaded) > 1000
    assert [line for line in loaded if not line.endswith(".pyc'")] == []


def test_labels(image: Image) -> None:
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in image.labels.items()}
    assert labels["title"] == "hfexport"
    assert labels["licenses"] == "Apache-2.0"
    assert labels["version"] == os.environ.get("HFEXPORT_TEST_VERSION", "v0.0.0-test")
    assert labels["revision"] == os.environ.get("GITHUB_SHA" if "HFEXPORT_TEST_IMAGE" in os.environ else "", "0" * 40)
    assert labels["source"].startswith("https://github.com/")
    assert labels["description"]


def test_entry_point_is_exec_form_absolute_and_isolated(image: Image) -> None:
    config = image.attrs["Config"]
    interpreter, *rest = config["Entrypoint"]
    assert interpreter == "/opt/hfexport/bin/python"
    assert "-I" in rest
    assert not config.get("Cmd")
    assert config.get("User", "") in ("", "0", "root")


def test_carries_no_pip_and_no_cache(engine: docker.DockerClient, image: Image, tmp_path) -> None:
    find = "find /opt/hfexport /root /tmp -path '*/pip' -o -name '.cache' -o -name 'torch_test*' -o -name '*.whl'"
    result = by_hand(engine, image, tmp_path, ["-c", find], entrypoint=["/bin/sh"])
    assert result.exit_code == 0, result.said
    assert result.stdout.split() == []
