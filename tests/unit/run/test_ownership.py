"""The output folder belongs to the owner of the workspace on Actions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hfexport.run.ownership import give_to_owner

USER, GROUP = 1001, 127

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change owners")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace of the runner's user, with an output folder of root in it."""
    workspace = tmp_path / "workspace"
    (workspace / "made" / "out" / "onnx").mkdir(parents=True)
    (workspace / "made" / "out" / "onnx" / "model.onnx").write_text("graph")
    (workspace / "other").write_text("root's")
    outside = tmp_path / "outside"
    outside.write_text("root's")
    (workspace / "made" / "out" / "link").symlink_to(outside)
    os.chown(workspace, USER, GROUP)
    return workspace


def _owners(*paths: Path) -> list[tuple[int, int]]:
    return [(path.lstat().st_uid, path.lstat().st_gid) for path in paths]


def test_all_that_was_made_belongs_to_the_user(workspace: Path, tmp_path: Path) -> None:
    made = workspace / "made"
    give_to_owner(made / "out", {"GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": str(workspace)})
    out = made / "out"
    assert set(_owners(made, out, out / "onnx", out / "onnx" / "model.onnx", out / "link")) == {(USER, GROUP)}
    assert set(_owners(workspace / "other", tmp_path / "outside")) == {(0, 0)}


def test_files_of_others_keep_their_owner(workspace: Path) -> None:
    model = workspace / "made" / "out" / "onnx" / "model.onnx"
    os.chown(model, 1002, 1002)
    give_to_owner(workspace / "made" / "out", {"GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": str(workspace)})
    assert _owners(model) == [(1002, 1002)]


@pytest.mark.parametrize("case", ["local", "no workspace", "outside", "workspace of root"])
def test_nothing_else_changes(case: str, workspace: Path, tmp_path: Path) -> None:
    env = {"GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": str(workspace)}
    if case == "local":
        env.pop("GITHUB_ACTIONS")
    elif case == "no workspace":
        env.pop("GITHUB_WORKSPACE")
    elif case == "outside":
        env["GITHUB_WORKSPACE"] = str(tmp_path / "elsewhere")
    else:
        os.chown(workspace, 0, 0)
    give_to_owner(workspace / "made" / "out", env)
    assert _owners(workspace / "made" / "out") == [(0, 0)]
