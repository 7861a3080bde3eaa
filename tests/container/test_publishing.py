"""The image publishes to a Hub: keyless as an action, with the log, the outputs and the files free of any token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.models.images import Image

from container.runs import Workspace, action_environment, finish
from hub.server import LocalHub
from hub.store import Publisher

pytestmark = pytest.mark.container


@pytest.fixture
def hub(checkpoint: Path) -> Iterator[LocalHub]:
    with LocalHub() as server:
        server.add("org/tiny", {path.name: path.read_bytes() for path in checkpoint.iterdir()})
        server.oidc_job = "org/release"
        server.publishers = [Publisher("org/release", "org/tiny")]
        yield server


def test_keyless_and_then_nothing_to_do(
    engine: docker.DockerClient, image: Image, workspace: Workspace, hub: LocalHub
) -> None:
    inputs = {"model": "org/tiny", "push_to_hub": "true", "formats": "torchscript"}
    environment = {
        **action_environment(inputs),
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{hub.url}/actions/id-token",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "runner-secret",
    }
    mounts = {workspace.repository: "/github/workspace", workspace.home: "/github/home"}
    mounts |= {workspace.commands: "/github/file_commands", workspace.temporary: "/github/runner_temp"}
    for published in ("committed", "nothing_to_do"):
        container = engine.containers.create(
            image,
            environment=environment,
            network_mode="host",  # where the Hub is
            volumes={str(host): {"bind": inside, "mode": "rw"} for host, inside in mounts.items()},
            working_dir="/github/workspace",
        )
        result = finish(container)
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
