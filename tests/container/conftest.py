"""The image, built once from the real Dockerfile, and what it is given to run on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import DockerException
from docker.models.images import Image

from container.runs import Workspace
from tiny import make_checkpoint

ROOT = Path(__file__).resolve().parent.parent.parent
BASE = os.environ.get("HFEXPORT_PYTHON_IMAGE", "python:3.11-slim-bookworm")
"""What images under test stand on; in CI by digest."""


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """A container engine that speaks Docker's API: the one of DOCKER_HOST, or the machine's own."""
    try:
        client = docker.from_env(timeout=900)
        client.ping()
    except DockerException as error:
        message = f"no container engine answers at {os.environ.get('DOCKER_HOST', 'the default socket')}"
        if os.environ.get("HFEXPORT_REQUIRE_ENGINE") == "1":
            pytest.fail(f"{message}, but HFEXPORT_REQUIRE_ENGINE=1: {error}")
        pytest.skip(message)
    yield client
    client.close()


@pytest.fixture(scope="session")
def image(engine: docker.DockerClient) -> Image:
    """The image under test: the slim one, which is what a plain build gives. AWS's index need not be in reach.

    `HFEXPORT_TEST_IMAGE` names one that was built already, as a release tests the very image that it publishes.
    """
    if name := os.environ.get("HFEXPORT_TEST_IMAGE"):
        return engine.images.pull(name)
    arguments = {"VERSION": "v0.0.0-test", "REVISION": "0" * 40, "PYTHON_IMAGE": BASE}
    built, _ = engine.images.build(path=str(ROOT), tag="hfexport:test", buildargs=arguments, rm=True, forcerm=True)
    return built


@pytest.fixture(scope="session")
def base(engine: docker.DockerClient, image: Image) -> Image:
    """What the image stands on; there once the image is built."""
    del image
    if "HFEXPORT_TEST_IMAGE" in os.environ:
        return engine.images.pull(BASE)
    return engine.images.get(BASE)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT classifier with a tokenizer."""
    folder = tmp_path_factory.mktemp("model") / "checkpoint"
    return make_checkpoint(folder, "bert", "sequence-classification", tokenizer=True)


@pytest.fixture
def workspace(tmp_path: Path, checkpoint: Path) -> Workspace:
    """A workspace with the checkpoint in it, and the files that the Actions runner hands to a container."""
    return Workspace.make(tmp_path, checkpoint)
