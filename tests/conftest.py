"""Settings of all tests."""

from __future__ import annotations

import gc
import os
import signal
import threading

import pytest

from hfexport._internal.process import collect_rarely

# Tests run side by side, and their models are tiny: more threads would only wait for each other. Set before torch and
# ONNX Runtime are imported, here and in child processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that starts the tests in the background has SIGINT ignored, which processes that tests interrupt would inherit.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The modules that tests import have millions of objects that live to the end.
collect_rarely()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Keep the garbage collector off what was imported."""
    gc.collect()
    gc.freeze()
