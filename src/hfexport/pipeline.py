"""The way of the data: inputs, checkpoint, task and export config, artifacts, validation, manifest.

`run` reads like the picture in docs/architecture.md. It decides nothing about the console or exit codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hfexport import __version__
from hfexport.architectures import config_class_for
from hfexport.backends import backend_for
from hfexport.backends.base import Artifact, ExportJob
from hfexport.checkpoint import Checkpoint, open_checkpoint
from hfexport.errors import CheckpointError, ExportError, InputsError, UnsupportedError, ValidationError
from hfexport.export_config import ExportConfig, Tolerance
from hfexport.probes import Probe, fixed_probes, validation_probes
from hfexport.tasks import TASKS, declared_tasks

if TYPE_CHECKING:
    from hfexport.inputs import Inputs
    from hfexport.observer import Observer
