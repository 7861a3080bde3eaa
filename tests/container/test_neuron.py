"""The image with a Neuron SDK in it, built from the real Dockerfile with a stand-in for AWS's index, exports for Neuron.

All but AWS's packages is real: the locks, torch 1.13.1, transformers 4, and an interpreter that was moved between images.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import docker
import pytest
from docker.models.images import Image

from container.conftest import BASE, ROOT
from container.runs import Workspace, as_action, by_hand
from neuron.sdk_stand_in.wheels import write_index

pytestmark = pytest.mark.container


@pytest.fixture(scope="module")
def neuron_index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an index on this machine that has the stand-in of the SDK for Inf1 under the names of AWS's packages."""
    folder = tmp_path_factory.mktemp("index")
    write_index("inf1", folder)
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def neuron_image(engine: docker.DockerClient, image: Image, neuron_index: str) -> Iterator[Image]:
    """The default image as a release builds it, on top of the layers of `image`; it is large, and goes afterwards."""
    del image
    if name := os.environ.get("HFEXPORT_TEST_NEURON_IMAGE"):
        yield engine.images.pull(name)
        return
    arguments = {
        "PYTHON_IMAGE": BASE,
        # PyPI's build of torch 1.13.1 is one of those whose hash is known, and there is one for Python 3.11.
        "TORCH_INDEX": os.environ.get("HFEXPORT_TORCH_INDEX", "https://pypi.org/simple"),
        "VERSION": "v0.0.0-test",
        "REVISION": "0" * 40,
        "NEURON": "inf1",
        "NEURON_PYTHON_IMAGE": os.environ.get("HFEXPORT_NEURON_PYTHON_IMAGE", BASE),
        "NEURON_INDEX": neuron_index,
    }
    options = {"tag": "hfexport:test-neuron", "buildargs": arguments, "network_mode": "host", "rm": True}
    built, _ = engine.images.build(path=str(ROOT), target="full", forcerm=True, **options)
    yield built
    engine.images.remove(built.id, force=True, noprune=True)


def test_the_default_image_exports_for_neuron_without_a_network(
    engine: docker.DockerClient, neuron_image: Image, workspace: Workspace
) -> None:
    result = as_action(engine, neuron_image, workspace, model="checkpoint", formats="neuron", sequence_length="16")
    assert result.exit_code == 0, result.said
    files = {name.removeprefix("hfexport-out/") for name in workspace.written()}
    made = {"model.neuron", "config.json", "compile.log", "hfexport_neuron/__init__.py", "hfexport_neuron/shapes.py"}
    assert {f"neuron/{name}" for name in made} <= files
    manifest = workspace.manifest
    assert manifest["verdict"] == "incomplete"
    (artifact,) = manifest["artifacts"]
    checks = {check["name"]: check for check in artifact["validation"]["checks"]}
    assert {name: check["verdict"] for name, check in checks.items()} == {
        "environment": "passed",
        "trace": "passed",
        "compiled": "passed",
        "device": "not_run",
    }
    assert checks["device"]["reason"].startswith("no Neuron device")
    assert artifact["details"]["network"]  # `none`, or why the container does not let the worker leave it
    versions = artifact["details"]["versions"]
    assert versions["torch"].startswith("1.13.1") and versions["transformers"] == "4.46.3"
    outputs, _ = workspace.outputs()
    assert outputs["verdict"] == "incomplete"
    assert outputs["neuron"] == "hfexport-out/neuron/model.neuron"
    assert "no Neuron device" in workspace.summary
    assert "Traceback" not in result.said


def test_the_image_with_neuron_exports_all_formats_at_once(
    engine: docker.DockerClient, neuron_image: Image, workspace: Workspace
) -> None:
    options = ["--model", "checkpoint", "--formats", "onnx,torchscript,neuron", "--sequence-length", "16"]
    result = by_hand(engine, neuron_image, workspace.repository, options)
    assert result.exit_code == 0, result.said
    verdicts = {one["format"]: one["validation"]["verdict"] for one in workspace.manifest["artifacts"]}
    assert verdicts == {"onnx": "passed", "torchscript": "passed", "neuron": "incomplete"}


@pytest.mark.parametrize(("target", "remedy"), [("inf1", "without /slim"), ("inf2", "NEURON=inf2")])
def test_the_image_without_an_sdk_says_what_to_do(
    engine: docker.DockerClient, image: Image, workspace: Workspace, target: str, remedy: str
) -> None:
    result = as_action(engine, image, workspace, model="checkpoint", formats="neuron", neuron_target=target)
    assert result.exit_code == 8, result.said
    assert f"no environment with the Neuron SDK for {target}" in result.said
    assert remedy in result.said and "neuron-python" in result.said
    assert "Traceback" not in result.said
    assert workspace.written() == {"hfexport-out/hfexport.json"}
    assert workspace.manifest["verdict"] == "error"
