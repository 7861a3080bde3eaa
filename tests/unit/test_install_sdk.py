"""A package of an index of its own never comes from another index, nor one of PyPI from that index by chance."""

from __future__ import annotations

import importlib.util
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install_sdk", ROOT / "scripts" / "install_sdk.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """An index with `sdk`, which needs its `part` and, from elsewhere, `numpy`; its extra needs `more`; and a stray."""
    needs = {"sdk": ("part==1", "numpy", 'more==1; extra == "tools"', "torch"), "part": (), "more": (), "torch": ()}
    for name, requires in needs.items():
        folder = tmp_path / "index" / name
        folder.mkdir(parents=True)
        with zipfile.ZipFile(folder / f"{name}-1-py3-none-any.whl", "w") as wheel:
            lines = [
                "Metadata-Version: 2.1",
                f"Name: {name}",
                "Version: 1",
                *(f"Requires-Dist: {need}" for need in requires),
            ]
            wheel.writestr(f"{name}-1.dist-info/METADATA", "\n".join([*lines, "Provides-Extra: tools", ""]))
            wheel.writestr(
                f"{name}-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            wheel.writestr(f"{name}-1.dist-info/RECORD", "")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "index"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(("wanted", "files"), [("sdk==1", {"sdk", "part"}), ("sdk[tools]==1", {"sdk", "part", "more"})])
def test_what_the_index_has_comes_from_it_alone(
    script: ModuleType, index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str, files: set[str]
) -> None:
    (tmp_path / "sdk.txt").write_text(f"# the SDK\n{wanted}\n")
    installed: list[str] = []
    run = subprocess.run

    def watched(command: Any, **options: Any) -> Any:
        if "install" not in command:
            assert command[command.index("--index-url") + 1] == index
            return run(command, **options, capture_output=True)
        installed.extend(command[command.index("install") + 1 :])
        return None

    monkeypatch.setattr(script.subprocess, "run", watched)
    script.main(index, str(tmp_path / "sdk.txt"))
    assert {Path(path.partition("[")[0]).name.partition("-")[0] for path in installed} == files
    assert all(path.partition("[")[0].endswith(".whl") for path in installed)  # by path: no index is asked for them
