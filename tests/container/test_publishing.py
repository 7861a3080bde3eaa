"""The image publishes to a Hub: keyless as an action, without any token in what it writes, and whole or not at all when it is ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container
from docker.models.images import Image

from container.runs import Workspace, action_environment, create, finish
from local_hub.server import LocalHub
from local_hub.store import Publisher

pytestmark = pytest.mark.container


@pytest.fixture
def hub(checkpoint: Path) -> Iterator[LocalHub]:
    with LocalHub() as server:
        server.add("org/tiny", {path.name: path.read_bytes() for path in checkpoint.iterdir()})
        server.oidc_job = "org/release"
        server.publishers = [Publisher("org/release", "org/tiny")]
        yield server


INPUTS = {"model": "org/tiny", "push_to_hub": "true", "formats": "torchscript"}


def beside(engine: docker.DockerClient, image: Image, workspace: Workspace, hub: LocalHub) -> Container:
    """A container as the runner starts it, on the network that the Hub is on."""
    environment = {
        **action_environment(INPUTS),
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{hub.url}/actions/id-token",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "runner-secret",
    }
    return create(engine, image, workspace, environment=environment, network_mode="host")


def test_keyless_and_then_nothing_to_do(
    engine: docker.DockerClient, image: Image, workspace: Workspace, hub: LocalHub
) -> None:
    for published in ("committed", "nothing_to_do"):
        result = finish(beside(engine, image, workspace, hub))
        assert result.exit_code == 0, result.said
        outputs, _ = workspace.outputs()
        assert outputs["published"] == published
        assert outputs["commit-url"] == f"{hub.url}/org/tiny/commit/{hub.repositories['org/tiny'].head()}"
        log = "\n".join(line for line in result.said.splitlines() if not line.startswith("::add-mask::"))
        (token,) = (one for one in hub.tokens if one.startswith("hf_jwt_"))
        for secret in (token, "runner-secret"):
            assert secret not in log
            assert secret not in workspace.summary
        (workspace.commands / "output").write_text("", encoding="utf-8")
    assert len(hub.repositories["org/tiny"].history()) == 2
    assert "torchscript/model.pt" in hub.repositories["org/tiny"].files()


@pytest.mark.parametrize("call", ["resolve", "lfs-upload", "commit"])
@pytest.mark.parametrize(("which", "exit_code"), [("SIGTERM", 143), ("SIGKILL", 137)])
def test_ended_by_a_signal_the_repository_is_as_it_was_and_the_next_run_completes_it(
    engine: docker.DockerClient,
    image: Image,
    workspace: Workspace,
    hub: LocalHub,
    call: str,
    which: str,
    exit_code: int,
) -> None:
    """hfexport is the container's first process, which gets no signal but those that it handles."""
    before = dict(hub.repositories["org/tiny"].refs)
    fault = hub.fail(call, "stalled" if call == "resolve" else "held", file="model.safetensors" * (call == "resolve"))
    container = beside(engine, image, workspace, hub)
    try:
        container.start()
        assert fault.held.reached.wait(300), container.logs().decode()
        container.kill(signal=which)
        ended = container.wait(timeout=60)["StatusCode"]
        log = container.logs().decode()
    finally:
        container.remove(force=True)
    assert ended == exit_code, log
    assert "Traceback" not in log
    assert hub.repositories["org/tiny"].refs == before
    made = {f"hfexport-out/{name}" for name in ("torchscript/model.pt", "config.json", "hfexport.json")}
    if which == "SIGTERM" and call == "resolve":
        assert workspace.written() == {"hfexport-out/hfexport.json"}
    elif which == "SIGTERM":  # what was made and proved stays, though it could not be published
        assert made <= workspace.written()
        assert not [name for name in workspace.written() if "/.hfexport" in name]
    result = finish(beside(engine, image, workspace, hub))
    assert result.exit_code == 0, result.said
    assert len(hub.repositories["org/tiny"].history()) == 2
