"""A forked child holds what its kind needs, and nothing that another kind would bring."""

from __future__ import annotations

import os
from pathlib import Path

from hfexport._internal import workers
from hfexport._internal.forkserver import FORK_SERVERS, fork_servers

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
        for kind in ("torch", "transformers", ""):
            work = tmp_path / f"work {kind}"
            given = {**env, FORK_SERVERS: folder}
            with workers.start("loaded_module", {}, name="child", folder=work, env=given, kind=kind) as child:
                loaded[kind] = child.result()["loaded"]
    assert loaded == {"torch": ["torch"], "transformers": ["torch", "transformers"], "": []}
