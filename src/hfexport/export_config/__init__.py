"""Export configs: inputs and outputs of each architecture with named axes, and the limits of each axis.

Torch-free. One small file in `hfexport.export_config.builtin` subclasses one of the bases here for each architecture.
"""

from __future__ import annotations

from hfexport.export_config.axes import Axis, axis_size, names_in, names_of
from hfexport.export_config.base import (
    LAYOUTS,
    TOLERANCE_CAP,
    ExportConfig,
    Layout,
    Limit,
    Part,
    Role,
    TensorSpec,
    Tolerance,
)
from hfexport.export_config.declared import DeclaredConfig, Interface
from hfexport.export_config.declared_seq2seq import DeclaredSeq2Seq, Seq2SeqInterface
from hfexport.export_config.decoder import DecoderConfig
from hfexport.export_config.dual_encoder import DualEncoderConfig
from hfexport.export_config.encoder import EncoderConfig
from hfexport.export_config.sentence import SentenceModules
from hfexport.export_config.seq2seq import Seq2SeqConfig, Seq2SeqGraph
from hfexport.export_config.sound import Convolution, SoundSeq2SeqConfig
from hfexport.export_config.vision import VisionConfig

__all__ = [
    "LAYOUTS",
    "TOLERANCE_CAP",
    "Axis",
    "Convolution",
    "DeclaredConfig",
    "DeclaredSeq2Seq",
    "DecoderConfig",
    "DualEncoderConfig",
    "EncoderConfig",
    "ExportConfig",
    "Interface",
    "Layout",
    "Limit",
    "Part",
    "Role",
    "SentenceModules",
    "Seq2SeqConfig",
    "Seq2SeqGraph",
    "Seq2SeqInterface",
    "SoundSeq2SeqConfig",
    "TensorSpec",
    "Tolerance",
    "VisionConfig",
    "axis_size",
    "names_in",
    "names_of",
]
