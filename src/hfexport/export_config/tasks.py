"""Tasks (features in `transformers.onnx`): the auto class that loads each, and its outputs.

Torch-free. Users give the name of a task; its heads say which weights the checkpoint must have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from hfexport.errors import UnsupportedError
from hfexport.export_config.recipe import TaskValues
from hfexport.export_config.sentence import SentenceModules

__all__ = [
    "SENTENCE_TASK",
    "TASKS",
    "TASK_NAMES",
    "Task",
    "declared_tasks",
    "is_encoder_alone",
    "select_task",
    "sentence_task",
]


@dataclass(frozen=True)
class Task:
    """Name, head and outputs of one task.

    Attributes:
        name: task name, such as `causal-lm-with-past`.
        auto_class: the class of `transformers` that loads the model with this task's head.
        heads: endings of the class names in `architectures` of config.json that have this head.
        outputs: axes by output name, without the hidden or label axis, which is fixed.
        with_past: the key/value cache is an input and an output.
    """

    name: str
    auto_class: str
    heads: tuple[str, ...]
    outputs: Mapping[str, tuple[str, ...]]
    with_past: bool = False

    def to_dict(self) -> TaskValues:
        """Convert to JSON values that `from_dict` reads."""
        outputs = {name: list(axes) for name, axes in self.outputs.items()}
        heads, with_past = list(self.heads), self.with_past
        return {
            "name": self.name,
            "auto_class": self.auto_class,
            "heads": heads,
            "outputs": outputs,
            "with_past": with_past,
        }

    @classmethod
    def from_dict(cls, values: TaskValues) -> Task:
        """Create from the result of `to_dict`."""
        outputs = {name: tuple(axes) for name, axes in values["outputs"].items()}
        heads = tuple(values["heads"])
        return cls(values["name"], values["auto_class"], heads, MappingProxyType(outputs), values["with_past"])

    @property
    def generates(self) -> bool:
        """Return whether greedy decoding with the artifact's cache is possible: it has logits and a cache."""
        return self.with_past and "logits" in self.outputs


def _task(
    name: str, auto_class: str, heads: tuple[str, ...], outputs: Mapping[str, tuple[str, ...]], with_past: bool = False
) -> Task:
    return Task(name, auto_class, heads, MappingProxyType(dict(outputs)), with_past)


SENTENCE_TASK: Final = "sentence-embedding"
"""Task of sentence-transformers folders, for every architecture that returns hidden states."""

_PER_TOKEN = ("batch", "sequence")
_HIDDEN = {"last_hidden_state": _PER_TOKEN}
_BASE = ("Model", "ForPreTraining")
_LM = ("ForCausalLM", "LMHeadModel")
_MASKED = ("ForMaskedLM", "ForPreTraining", "WithLMHeadModel")
_SEQ2SEQ = ("ForConditionalGeneration", "MTModel")
# The masked-LM head and the causal head of an encoder have the same weights, so a checkpoint serves both tasks.
_ENCODER_LM = ("ForMaskedLM", "ForPreTraining", "LMHeadModel", "ForCausalLM")

_ALL: Final = (
    _task("default", "AutoModel", _BASE, _HIDDEN),
    _task("default-with-past", "AutoModel", _BASE, _HIDDEN, with_past=True),
    # Pooling and normalisation of a sentence-transformers folder after the bare model.
    _task(
        SENTENCE_TASK,
        "AutoModel",
        (),
        {"token_embeddings": _PER_TOKEN, "sentence_embedding": ("batch",)},
    ),
    _task("masked-lm", "AutoModelForMaskedLM", _MASKED, {"logits": _PER_TOKEN}),
    _task("causal-lm", "AutoModelForCausalLM", _ENCODER_LM, {"logits": _PER_TOKEN}),
    _task("causal-lm-with-past", "AutoModelForCausalLM", _LM, {"logits": _PER_TOKEN}, with_past=True),
    _task("seq2seq-lm", "AutoModelForSeq2SeqLM", _SEQ2SEQ, {"logits": _PER_TOKEN}),
    _task("seq2seq-lm-with-past", "AutoModelForSeq2SeqLM", _SEQ2SEQ, {"logits": _PER_TOKEN}, with_past=True),
    _task("speech2seq-lm", "AutoModelForSpeechSeq2Seq", _SEQ2SEQ, {"logits": _PER_TOKEN}),
    _task("speech2seq-lm-with-past", "AutoModelForSpeechSeq2Seq", _SEQ2SEQ, {"logits": _PER_TOKEN}, with_past=True),
    _task("vision2seq-lm", "AutoModelForImageTextToText", ("VisionEncoderDecoderModel",), {"logits": _PER_TOKEN}),
    _task(
        "vision2seq-lm-with-past",
        "AutoModelForImageTextToText",
        ("VisionEncoderDecoderModel",),
        {"logits": _PER_TOKEN},
        with_past=True,
    ),
    _task(
        "sequence-classification",
        "AutoModelForSequenceClassification",
        ("ForSequenceClassification",),
        {"logits": ("batch",)},
    ),
    _task("multiple-choice", "AutoModelForMultipleChoice", ("ForMultipleChoice",), {"logits": ("batch", "choice")}),
    _task(
        "token-classification",
        "AutoModelForTokenClassification",
        ("ForTokenClassification",),
        {"logits": _PER_TOKEN},
    ),
    _task(
        "question-answering",
        "AutoModelForQuestionAnswering",
        ("ForQuestionAnswering", "ForQuestionAnsweringSimple"),
        {"start_logits": _PER_TOKEN, "end_logits": _PER_TOKEN},
    ),
    _task(
        "image-classification",
        "AutoModelForImageClassification",
        (
            *("ForImageClassification", "ForImageClassificationWithTeacher"),
            # Perceiver has three classes, one for each way to read an image.
            *(f"ForImageClassification{kind}" for kind in ("Learned", "Fourier", "ConvProcessing")),
        ),
        {"logits": ("batch",)},
    ),
    _task(
        "semantic-segmentation",
        "AutoModelForSemanticSegmentation",
        ("ForSemanticSegmentation",),
        {"logits": ("batch",)},
    ),
    _task(
        "depth-estimation",
        "AutoModelForDepthEstimation",
        ("ForDepthEstimation",),
        {"predicted_depth": ("batch",)},
    ),
    _task(
        "object-detection",
        "AutoModelForObjectDetection",
        ("ForObjectDetection",),
        {"logits": ("batch",), "pred_boxes": ("batch",)},
    ),
    _task(
        "image-segmentation",
        "AutoModelForImageSegmentation",
        ("ForSegmentation",),
        {"logits": ("batch",), "pred_boxes": ("batch",), "pred_masks": ("batch",)},
    ),
)

TASKS: Final[Mapping[str, Task]] = MappingProxyType({task.name: task for task in _ALL})
TASK_NAMES: Final[tuple[str, ...]] = tuple(TASKS)


def sentence_task(modules: SentenceModules) -> Task:
    """Return the task of a sentence-transformers folder: SPLADE needs the masked-LM head, all others the bare model."""
    task = TASKS[SENTENCE_TASK]
    if modules.splade is None:
        return task
    return replace(task, auto_class="AutoModelForMaskedLM", outputs={"sentence_embedding": ("batch",)})


def is_encoder_alone(architectures: Sequence[str]) -> bool:
    """Return whether the checkpoint's class is the encoder of an encoder-decoder, such as `T5EncoderModel`."""
    return bool(architectures) and architectures[0].endswith("EncoderModel")


def declared_tasks(architectures: Sequence[str], supported: Sequence[str]) -> tuple[str, ...]:
    """Return the tasks whose head a checkpoint declares, the one it was trained for first.

    Args:
        architectures: class names from `architectures` in config.json.
        supported: tasks of the architecture's export config.

    Returns:
        Task names, a subset of `supported`. Every checkpoint with a head also serves the bare model (`default`).
    """
    known = [TASKS[name] for name in supported]
    carried = [task for task in known if any(name.endswith(task.heads) for name in architectures)]
    trained = sorted((task for task in carried if not task.name.startswith("default")), key=_preference)
    bare = [task for task in known if task.name.startswith("default")] if architectures else []
    # With past first: one decoder graph also serves the prefill (past length 0).
    bare.sort(key=_preference)
    return tuple(task.name for task in [*trained, *bare])


def _preference(task: Task) -> tuple[bool, int]:
    return (not task.with_past, TASK_NAMES.index(task.name))


def select_task(requested: str, *, model_type: str, architectures: Sequence[str], supported: Sequence[str]) -> Task:
    """Select the task to export for.

    Args:
        requested: `auto`, or the name of a task.
        model_type: from config.json, for messages.
        architectures: class names from `architectures` in config.json.
        supported: tasks of the architecture's export config.

    Raises:
        UnsupportedError: the checkpoint has no head for the task, or does not declare its head.
    """
    possible = declared_tasks(architectures, supported)
    if requested == "auto":
        if not architectures:
            raise UnsupportedError(
                f"config.json of this {model_type} checkpoint has no `architectures`, so its task cannot be told",
                remedy=f"Give the task by name; {model_type} has: {', '.join(supported)}.",
            )
        if len(possible) == 0 or (possible[0].startswith("default") and not _is_bare(architectures)):
            raise UnsupportedError(
                f"config.json says architectures {', '.join(architectures)}, a head that hfexport has no task for",
                remedy=f"Give the task by name; {model_type} has: {', '.join(supported)}.",
            )
        return TASKS[possible[0]]
    if requested not in supported:
        raise UnsupportedError(
            f"task {requested!r} is not supported for {model_type}",
            remedy=f"{model_type} has: {', '.join(supported)}.",
        )
    if architectures and requested not in possible:
        raise UnsupportedError(
            f"task {requested!r} needs a head that this checkpoint does not have: it was saved as "
            + ", ".join(architectures),
            remedy=f"This checkpoint can be exported for: {', '.join(possible)}.",
        )
    return TASKS[requested]


def _is_bare(architectures: Sequence[str]) -> bool:
    return any(name.endswith("Model") and not name.endswith(_LM) for name in architectures)
