"""What the manifest says of the run and the image that made it."""

from __future__ import annotations

import pytest

from hfexport.manifest.entries import check_manifest, new_manifest, provenance_entry
from hfexport.run.inputs import Inputs, recorded

IMAGE = f"ghcr.io/org/hfexport-action@sha256:{'0' * 64}"
ON_ACTIONS = {
    "GITHUB_ACTIONS": "true",
    "GITHUB_RUN_ID": "12",
    "GITHUB_RUN_ATTEMPT": "3",
    "GITHUB_REPOSITORY": "org/model",
    "GITHUB_SHA": "a" * 40,
    "GITHUB_WORKFLOW_REF": "org/model/.github/workflows/release.yml@refs/heads/main",
}


def test_a_run_in_a_released_image() -> None:
    entry = provenance_entry({**ON_ACTIONS, "HFEXPORT_IMAGE": IMAGE})
    assert entry == {
        "image": IMAGE,
        "repository": "org/model",
        "commit": "a" * 40,
        "workflow": "org/model/.github/workflows/release.yml@refs/heads/main",
        "run": "https://github.com/org/model/actions/runs/12/attempts/3",
    }
    check_manifest({**new_manifest(recorded(Inputs()), "2026-01-01T00:00:00+00:00"), "provenance": entry})


def test_outside_of_actions_and_images_there_is_none() -> None:
    assert provenance_entry({}) is None
    assert provenance_entry({"GITHUB_REPOSITORY": "org/model"}) is None


@pytest.mark.parametrize("image", ["hfexport:latest", "ghcr.io/x@sha256:12", "x y@sha256:" + "0" * 64])
def test_only_a_digest_names_an_image(image: str) -> None:
    entry = provenance_entry({**ON_ACTIONS, "HFEXPORT_IMAGE": image})
    assert entry is not None
    assert entry["image"] is None
