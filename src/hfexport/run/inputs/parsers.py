"""Parsers of input texts; each raises `ValueError` with the allowed values."""

from __future__ import annotations

import difflib
import math
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hfexport.backends.formats import FORMATS
from hfexport.backends.onnx.targets import TARGETS
from hfexport.backends.variants import VARIANTS
from hfexport.checkpoint.model_id import HUB_ID
from hfexport.export_config.tasks import TASK_NAMES

__all__ = [
    "DTYPE",
    "TASK",
    "Choice",
    "Parser",
    "boolean",
    "class_reference",
    "data_file",
    "duration",
    "fixed_sizes",
    "folder_inside",
    "formats",
    "further_outputs",
    "image",
    "line",
    "optimizations",
    "path",
    "patterns",
    "positive_integer",
    "program",
    "push",
    "quoted",
    "revision",
    "schedule",
    "secret",
    "share",
    "slug",
    "targets",
    "tolerance",
    "variant",
    "variants",
    "whole_number",
    "words",
]

FURTHER_OUTPUTS: Final = ("attentions", "hidden_states")

DATA_SUFFIXES: Final = (".txt", ".jsonl", ".csv")

OPTIMIZATIONS: Final = ("FLOAT32_TO_FLOAT16",)
"""Names of the optimisations in `torch_neuron.Optimization`."""


_MAX_INTEGER: Final = 2**31 - 1
_MAX_SHOWN: Final = 100


Parser = Callable[[str], Any]
"""Function that converts the user's text to a value, or raises `ValueError` with the allowed values."""


def path(value: str) -> str:
    """Parse the path of a folder."""
    if not value or "\0" in value:
        raise ValueError("must be the path of a folder")
    return value


def program(value: str) -> str:
    """Parse the path of a program."""
    if not value or "\0" in value:
        raise ValueError("must be the path of a program")
    return value


def folder_inside(value: str) -> str:
    """Parse the relative path of a folder below another."""
    parts = value.strip("/").split("/")
    if value.startswith("/") or "\0" in value or "\\" in value or any(part in ("", ".", "..") for part in parts):
        raise ValueError("must be a path inside the repository, such as text_encoder")
    return "/".join(parts)


def revision(value: str) -> str:
    """Parse the name of a git reference, by a subset of git's rules (https://git-scm.com/docs/git-check-ref-format)."""
    if not re.fullmatch(r"[^\s~^:?*\[\\\x00-\x1f\x7f]+", value) or ".." in value or value.startswith(("-", "/")):
        raise ValueError("must be a branch, a tag, a commit or refs/pr/N")
    return value


def push(value: str) -> str | None:
    """Parse `true` or a repository id; false gives `None`."""
    if value.lower() in ("true", "false"):
        return "true" if boolean(value) else None
    if not re.fullmatch(HUB_ID, value):
        raise ValueError("must be owner/name, or true for the model's own repository on the Hub")
    return value


def variant(value: str) -> str:
    """Parse the variant of the weights, a part of their file names."""
    if not re.fullmatch(r"[\w-]+", value):
        raise ValueError("must be the part of a file name such as fp16, for model.fp16.safetensors")
    return value


def further_outputs(value: str) -> tuple[str, ...]:
    """Parse a list of further model outputs."""
    asked = tuple(dict.fromkeys(part for part in re.split(r"[\s,]+", value) if part))
    unknown = [name for name in asked if name not in FURTHER_OUTPUTS]
    if unknown or not asked:
        raise ValueError(f"must be any of {', '.join(FURTHER_OUTPUTS)}")
    return asked


def targets(value: str) -> tuple[str, ...]:
    """Parse a list of targets."""
    parse = Choice(tuple(TARGETS), {"transformers.js": "transformersjs", "onnxruntime-genai": "genai"})
    asked = tuple(dict.fromkeys(part for part in re.split(r"[\s,]+", value) if part))
    if not asked:
        raise ValueError(f"must be any of {', '.join(TARGETS)}")
    return tuple(map(parse, asked))


def variants(value: str) -> tuple[str, ...]:
    """Parse a list of variants."""
    asked = tuple(dict.fromkeys(part for part in re.split(r"[\s,]+", value) if part))
    unknown = [name for name in asked if name not in VARIANTS]
    if unknown or not asked:
        close = difflib.get_close_matches(unknown[0], VARIANTS, n=1) if unknown else []
        hint = f"did you mean {close[0]}? " if close else ""
        named = f"{unknown[0]} is no variant: " if unknown else ""
        raise ValueError(f"{named}{hint}must be any of {', '.join(VARIANTS)}")
    return asked


def data_file(value: str) -> str:
    """Parse the path of a file with texts, or of a folder with images or sounds."""
    if value and Path(value).is_dir():
        from hfexport.validation.quality.data import media_in

        media_in(Path(value))
        return value
    if Path(value).suffix.lower() not in DATA_SUFFIXES:
        raise ValueError(
            f"must be a {', '.join(DATA_SUFFIXES[:-1])} or {DATA_SUFFIXES[-1]} file, or a folder of images or sounds"
        )
    if not Path(value).is_file():
        raise ValueError("is not a file")
    return value


def line(value: str) -> str:
    """Parse one line of text."""
    if not value.strip() or not value.isprintable():
        raise ValueError("must be one line of text")
    return value


def secret(value: str) -> str:
    """Parse a token."""
    if not re.fullmatch(r"[\x21-\x7e]+", value):
        raise ValueError("must be a single word, as the Hub gave it")
    return value


def class_reference(value: str) -> str:
    """Parse `path/file.py:Class`."""
    path, colon, name = value.rpartition(":")
    if not colon or not path.endswith(".py") or not name.isidentifier():
        raise ValueError("must be a Python file and a class in it: path/file.py:Class")
    if not Path(path).is_file():
        raise ValueError(f"{path} is not a file")
    return value


@dataclass(frozen=True)
class Choice:
    """Parse one of several names.

    Attributes:
        allowed: allowed names.
        also_known_as: other names that users may write; an error gives their meaning.
    """

    allowed: tuple[str, ...]
    also_known_as: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, value: str) -> str:
        if value in self.allowed:
            return value
        names = {name: name for name in self.allowed} | dict(self.also_known_as)
        close = difflib.get_close_matches(value.lower(), names, n=1)
        hint = f"did you mean {names[close[0]]}? " if close else ""
        raise ValueError(f"{hint}allowed: {', '.join(self.allowed)}")


def fixed_sizes(value: str) -> dict[str, int]:
    """Parse sizes of axes: `batch=1, sequence=128`."""
    sizes: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in re.split(r"[,\r\n]", value))):
        written = re.fullmatch(r"([A-Za-z_]\w*)\s*=\s*([0-9]{1,10})", part)
        if not written or int(written[2]) > _MAX_INTEGER:
            raise ValueError(f"{quoted(part)} must be an axis and its size, such as batch=1")
        if sizes.setdefault(written[1], int(written[2])) != int(written[2]):
            raise ValueError(f"gives two sizes of {written[1]}")
    if not sizes:
        raise ValueError("must have at least one axis and its size, such as batch=1, sequence=128")
    return sizes


def formats(value: str) -> tuple[str, ...]:
    """Parse formats: each once, in the given order."""
    names = [name.strip() for name in re.split(r"[,\r\n]", value)]
    parse = Choice(tuple(FORMATS))
    chosen: dict[str, None] = {}
    for name in filter(None, names):
        try:
            chosen[parse(name)] = None
        except ValueError as error:
            raise ValueError(f"{quoted(name)} is not a format; {error}, separated by commas or newlines") from None
    if not chosen:
        raise ValueError(f"must name at least one of {', '.join(FORMATS)}")
    return tuple(chosen)


def patterns(value: str) -> tuple[str, ...]:
    """Parse shell-style patterns of names: each once, in the given order."""
    found = [pattern.strip() for pattern in re.split(r"[,\r\n]", value)]
    if not any(found):
        raise ValueError("must have at least one name or pattern, separated by commas or newlines")
    return tuple(dict.fromkeys(filter(None, found)))


def boolean(value: str) -> bool:
    """Parse a boolean of YAML 1.2's core schema, as the Action toolkits do."""
    if value not in ("true", "True", "TRUE", "false", "False", "FALSE"):
        raise ValueError("allowed: true, false")
    return value.lower() == "true"


def positive_integer(value: str) -> int:
    """Parse an integer of at least 1."""
    if not re.fullmatch(r"[0-9]{1,10}", value) or not 1 <= int(value) <= _MAX_INTEGER:
        raise ValueError(f"must be a whole number from 1 to {_MAX_INTEGER}")
    return int(value)


def duration(value: str) -> str:
    """Parse a duration such as `90m`, in seconds, minutes, hours or days."""
    if not re.fullmatch(r"[1-9][0-9]{0,6}[smhd]", value):
        raise ValueError("must be a number with a unit: s, m, h or d, such as 90m")
    return value


def slug(value: str) -> str:
    """Parse a name of the Hub: of a user, an organisation, a job or a flavor of hardware."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}", value):
        raise ValueError("must be a name, as the Hub shows it")
    return value


def image(value: str) -> str:
    """Parse the name of a container image."""
    if not re.fullmatch(r"[A-Za-z0-9][\w./:@-]{0,254}", value):
        raise ValueError("must be an image such as ghcr.io/owner/name:tag")
    return value


def schedule(value: str) -> str:
    """Parse a schedule: a name such as `@daily`, or a cron expression of five fields."""
    names = ("@hourly", "@daily", "@weekly", "@monthly", "@yearly", "@annually")
    if value not in names and not re.fullmatch(r"([\d*/,-]+ +){4}[\d*/,-]+", value):
        raise ValueError(f"must be one of {', '.join(names)}, or a cron expression such as '0 9 * * 1'")
    return value


def whole_number(value: str) -> int:
    """Parse an integer of at least 0."""
    return 0 if value == "0" else positive_integer(value)


def share(value: str) -> float:
    """Parse a number from 0 to 1."""
    if not re.fullmatch(r"0|1|0?\.[0-9]{1,9}|1\.0{1,9}", value):
        raise ValueError("must be a number from 0 to 1, such as 0.9")
    return float(value)


def words(value: str) -> tuple[str, ...]:
    """Split a text into words as a shell does."""
    try:
        words = tuple(shlex.split(value))
    except ValueError as error:
        raise ValueError(f"must be words as a shell splits them ({str(error).lower()})") from None
    if not words:
        raise ValueError("must have at least one word")
    return words


def optimizations(value: str) -> tuple[str, ...]:
    """Parse optimisations of the Neuron compiler."""
    parse = Choice(OPTIMIZATIONS)
    names = [name.strip().upper() for name in re.split(r"[,\r\n]", value) if name.strip()]
    if not names:
        raise ValueError(f"must name at least one of {', '.join(OPTIMIZATIONS)}")
    return tuple(dict.fromkeys(map(parse, names)))


def tolerance(value: str) -> float:
    """Parse a number of at least 0."""
    written = re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", value)
    if not written or not math.isfinite(float(value)):
        raise ValueError("must be a number of at least 0, such as 1e-5")
    return float(value)


TASK = Choice(
    ("auto", *TASK_NAMES),
    # Names of the same heads in transformers pipelines and model cards.
    {
        "feature-extraction": "default",
        "fill-mask": "masked-lm",
        "text-generation": "causal-lm-with-past",
        "text-classification": "sequence-classification",
        "text2text-generation": "seq2seq-lm-with-past",
        "automatic-speech-recognition": "speech2seq-lm-with-past",
        "image-to-text": "vision2seq-lm",
    },
)


DTYPE = Choice(("auto", "fp32", "fp16"), {"float32": "fp32", "float16": "fp16", "float": "fp32", "half": "fp16"})


def quoted(text: str) -> str:
    """Quote a user's text, cut to a length that suits a message."""
    return repr(text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…")
