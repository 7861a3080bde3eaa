"""The models whose artifacts are mutated: tiny seeded ones of every kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from tiny import make_checkpoint
from tiny.sentence import write_modules

__all__ = ["SUBJECTS", "Subject"]


@dataclass(frozen=True)
class Subject:
    """One model.

    Attributes:
        name: for the table and `--models`.
        kind: of model, for the table.
        model_type: of `tiny`.
        task: to export for.
        formats: to export to.
        changes: config values to set otherwise than `tiny` does.
        made_for: the task whose head the checkpoint has, if not `task`.
        pooling: modes of a sentence-transformers pooling.
        options: further arguments of the export.
    """

    name: str
    kind: str
    model_type: str
    task: str
    formats: tuple[str, ...] = ("onnx", "torchscript")
    changes: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    made_for: str = ""
    pooling: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def make(self, folder: Path) -> Path:
        """Write the checkpoint into `folder`."""
        checkpoint = make_checkpoint(folder, self.model_type, self.made_for or self.task, **self.changes)
        if self.pooling:
            write_modules(checkpoint, self.pooling)
        return checkpoint


SUBJECTS: Final = (
    Subject("bert", "encoder", "bert", "sequence-classification"),
    Subject("roberta", "encoder", "roberta", "token-classification"),
    Subject("distilbert", "encoder", "distilbert", "question-answering"),
    Subject("gpt2", "decoder", "gpt2", "causal-lm-with-past"),
    Subject("llama", "decoder", "llama", "causal-lm-with-past"),
    Subject(
        "llama-external", "decoder", "llama", "causal-lm-with-past", ("onnx",), options=("--external-data", "true")
    ),
    Subject("gpt_neo", "decoder with a window", "gpt_neo", "causal-lm-with-past"),
    Subject("mistral", "decoder with a window", "mistral", "causal-lm-with-past", made_for="auto"),
    Subject("t5", "encoder-decoder", "t5", "seq2seq-lm-with-past"),
    Subject("bart", "encoder-decoder", "bart", "seq2seq-lm-with-past"),
    Subject("vit", "image", "vit", "image-classification"),
    Subject("resnet", "image", "resnet", "image-classification"),
    Subject("whisper", "sound", "whisper", "speech2seq-lm-with-past"),
    Subject("wav2vec2", "sound", "wav2vec2", "auto"),
    Subject("sentence", "sentence", "bert", "sentence-embedding", made_for="default", pooling=("mean", "cls")),
)
