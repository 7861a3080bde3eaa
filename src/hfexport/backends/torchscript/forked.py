"""Write a file with torch in a forked process, so that torch cannot abort the calling process.

torch's archive writer aborts the process when a write fails, since its destructor throws
(caffe2/serialize/inline_container.cc), and it cannot be interrupted. A fork shares the memory of the caller, which
waits for it. This can go when a failed `torch.jit.save` raises.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, NoReturn

from hfexport.errors import first_line

__all__ = ["write_in_fork"]


def write_in_fork(write: Callable[[], object], path: Path, needed_bytes: int) -> None:
    """Call `write` to write the file `path`, in a fork of this process that ends afterwards.

    Args:
        write: function that runs on one thread.
        path: path of the file.
        needed_bytes: size of the file, or slightly less.

    Raises:
        OSError: the file cannot be written: ENOSPC if the disk is full, otherwise EIO.
        RuntimeError: `write` raised another error; the text is its first line.
    """
    with tempfile.TemporaryFile() as said:
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            _write_and_end(write, said, parent)
        try:
            _, status = os.waitpid(child, 0)
        except BaseException:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise
        if status == 0:
            return
        said.seek(0)
        text = said.read(2**16).decode("utf-8", errors="replace").strip()
    if os.waitstatus_to_exitcode(status) > 0:
        raise RuntimeError(text or "it ended without a reason")
    written = path.stat().st_size if path.exists() else 0
    full = shutil.disk_usage(path.parent).free < max(needed_bytes - written, 2**16)
    number = errno.ENOSPC if full else errno.EIO
    raise OSError(number, os.strerror(number), str(path))


def _write_and_end(write: Callable[[], object], said: IO[bytes], parent: int) -> NoReturn:
    """Run the fork: exit with code 0, or 1 with the reason in `said`, or by torch's signal."""
    code = 1
    try:
        import torch

        from hfexport._internal.process import die_with

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        die_with(parent)
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)  # torch prints every frame to it when it aborts
        torch.set_num_threads(1)  # the fork has no other threads of the pool
        write()
        code = 0
    except BaseException as error:  # noqa: BLE001  this process ends here
        said.write(first_line(error).encode())
        said.flush()
    finally:
        os._exit(code)
