"""A forked child holds what its kind needs, and nothing that another kind would bring."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import loaded_modules
from hfexport._internal import workers
from hfexport._internal.forkserver import FORK_SERVERS, fork, fork_servers


def test_a_child_holds_only_its_kind(forking: str, tmp_path: Path) -> None:
    support = Path(loaded_modules.__file__).parent
    env = workers.child_environment({**os.environ, "PYTHONPATH": str(support), FORK_SERVERS: forking})
    loaded = {}
    for kind in ("torch", "transformers", "onnx", ""):
        work = tmp_path / f"work {kind}"
        with workers.start("loaded_modules", {}, name="child", folder=work, env=env, kind=kind) as child:
            loaded[kind] = child.result()["loaded"]
    assert loaded == {"torch": ["torch"], "transformers": ["torch", "transformers"], "onnx": [], "": []}


def test_a_private_server_serves_only_who_has_its_key(tmp_path: Path) -> None:
    env = workers.child_environment({**os.environ, "PYTHONPATH": str(Path(loaded_modules.__file__).parent)})
    with fork_servers(env, {"small": ("json",)}, private=True) as servers:
        folder, _, key = servers.partition("?key=")
        assert len(key) == 64
        started = workers.start(
            "loaded_modules", {}, name="child", folder=tmp_path / "a", env=env, kind="small", servers=servers
        )
        with started as child:
            assert child.result()["loaded"] == []
        request = {
            "runner": "hfexport._internal.workers",
            "module": "loaded_modules",
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
