"""Settings of all tests."""

from __future__ import annotations

import os

# Tests run side by side, and their models are tiny: more threads would only wait for each other. Set before torch and
# ONNX Runtime are imported, here and in child processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")
