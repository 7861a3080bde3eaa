"""A forked child holds what its kind needs, and nothing that another kind would bring."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hfexport._internal import workers
from hfexport._internal.forkserver import FORK_SERVERS, fork, fork_servers

MODULE = """
import sys

def run(job):
    return {"loaded": [name for name in ("torch", "transformers", "onnxruntime") if name in sys.modules]}
"""


def test_a_child_holds_only_its_kind(tmp_path: Path) -> None:
    (tmp_path / "loaded_module.py").write_text(MODULE)
    env = workers.child_environment({**os.environ, "PYTHONPATH": str(tmp_path)})
    loaded = {}
    with fork_servers(env) as folder:
        for kind in ("torch", "transformers", "onnx", ""):
            work = tmp_path / f"work {kind}"
            given = {**env, FORK_SERVERS: folder}
            with workers.start("loaded_module", {}, name="child", folder=work, env=given, kind=kind) as child:
                loaded[kind] = child.result()["loaded"]
    assert loaded == {"torch": ["torch"], "transformers": ["torch", "transformers"], "onnx": [], "": []}


def test_a_private_server_serves_only_who_has_its_key(tmp_path: Path) -> None:
    (tmp_path / "loaded_module.py").write_text(MODULE)
    env = workers.child_environment({**os.environ, "PYTHONPATH": str(tmp_path)})
    with fork_servers(env, {"small": ("json",)}, private=True) as servers:
        folder, _, key = servers.partition("?key=")
        assert len(key) == 64
        started = workers.start(
            "loaded_module", {}, name="child", folder=tmp_path / "a", env=env, kind="small", servers=servers
        )
        with started as child:
            assert child.result()["loaded"] == []
        request = {
            "runner": "hfexport._internal.workers",
            "module": "loaded_module",
            "job": "x",
            "folder": "/",
            "env": {},
        }
        for wrong in (folder, f"{folder}?key=", f"{folder}?key={'0' * 64}"):
            with pytest.raises(ValueError, match="invalid literal"):
                fork("small", {**request, "log": str(tmp_path / "log")}, {FORK_SERVERS: wrong})
    assert not (tmp_path / "log").exists()


def test_a_child_of_a_private_server_has_its_own_variables_only(tmp_path: Path) -> None:
    program = (
        "import os, tempfile\n\ndef run(job):\n    return {'names': sorted(os.environ), 'tmp': tempfile.gettempdir()}\n"
    )
    (tmp_path / "own_variables.py").write_text(program)
    mine = {"MINE": "1", "TMPDIR": str(tmp_path)}
    env = workers.child_environment({**os.environ, "PYTHONPATH": str(tmp_path)})
    with fork_servers({**env, "OF_THE_SERVER": "1"}, {"small": ("torch",)}, private=True) as servers:
        started = workers.start(
            "own_variables", {}, name="child", folder=tmp_path / "a", env=mine, kind="small", servers=servers
        )
        with started as child:
            found = child.result()
    assert set(found["names"]) - {"MINE", "TMPDIR"} == set()
    assert found["tmp"] == str(tmp_path)
