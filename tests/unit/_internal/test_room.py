"""A disk that is full, and the torch writer that would end the process: each one clear error."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from hfexport._internal import room
from hfexport._internal.room import no_room, require_room, writing
from hfexport.backends.torchscript.forked import write_in_fork
from hfexport.checkpoint import sha256
from hfexport.errors import ExportError
from hfexport.run.hashing import Hashing
from hfexport.validation import timeout_for


def test_too_little_room_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: SimpleNamespace(free=7))
    require_room(tmp_path, 7)
    with pytest.raises(ExportError, match="has no room: 8 bytes are needed, 7 bytes are free"):
        require_room(tmp_path, 8)


def test_a_disk_that_fills_meanwhile(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="5 bytes are needed"), writing(tmp_path, 5):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(PermissionError), writing(tmp_path, 5):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_a_staging_folder_is_not_named(tmp_path: Path) -> None:
    inside = tmp_path / ".hfexport-abc" / "ready" / "onnx"
    inside.mkdir(parents=True)
    assert no_room(inside).message.startswith(f"folder {str(tmp_path)!r} has no room: ")


def test_a_fork_writes_or_tells_why_not(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_in_fork(lambda: path.write_bytes(b"written"), path, 7)
    assert path.read_bytes() == b"written"

    def fails() -> None:
        raise RuntimeError("Could not export Python function call\nand pages more")

    with pytest.raises(RuntimeError, match=r"^Could not export Python function call$"):
        write_in_fork(fails, path, 7)
    for needed, number in ((7, errno.EIO), (shutil.disk_usage(tmp_path).total, errno.ENOSPC)):
        with pytest.raises(OSError, match=os.strerror(number)):
            write_in_fork(lambda: os.kill(os.getpid(), signal.SIGABRT), path, needed)


def test_hashing_stops_in_the_middle_of_a_file(tmp_path: Path) -> None:
    path, asked = tmp_path / "large", threading.Event()
    with path.open("wb") as file:
        file.truncate(2**40)  # an hour's work
    with pytest.raises(KeyboardInterrupt), Hashing() as hashing:
        started = hashing.start(path)
        asked.wait(0.05)
        raise KeyboardInterrupt
    assert started.done()
    small = tmp_path / "small"
    small.write_bytes(b"x" * 3_000_000)
    with Hashing() as hashing:
        digests = hashing.start_all([path, small], {path: "known"})
        assert digests() == {path: "known", small: sha256(small)}


def test_more_weights_get_more_time() -> None:
    assert timeout_for(0) == 900
    assert timeout_for(3 * 10**9) == 3600
