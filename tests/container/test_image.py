"""What the image is: its size, labels and entry point."""

from __future__ import annotations

import os

import docker
import pytest
from docker.models.images import Image

from container.runs import by_hand

pytestmark = pytest.mark.container

SIZE_LIMIT_BYTES = 1_500_000_000

WHEELS = """
import os
paths = [os.path.join(folder, name) for folder, _, names in os.walk("/opt") for name in names if name.endswith(".whl")]
print(sum(os.path.getsize(path) for path in paths))
"""


def test_size(engine: docker.DockerClient, image: Image, base: Image, tmp_path) -> None:
    # A base that stands in for the official one may carry wheels, for building without a network.
    wheels = by_hand(engine, base, tmp_path, ["-c", WHEELS], entrypoint=["/usr/local/bin/python3"])
    assert wheels.exit_code == 0, wheels.said
    size_bytes = image.attrs["Size"] - int(wheels.stdout)
    assert size_bytes <= SIZE_LIMIT_BYTES, f"{size_bytes / 1e9:.2f} GB"


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
