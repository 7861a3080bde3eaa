"""Tiny seeded checkpoints of every architecture, with weights under which a mistake shows.

Fresh models of `transformers` have weights near zero, biases of zero and norms of one: with those, a lost bias, a
forgotten mask or a wrong layer hardly moves the output. Here all of them are drawn anew, wide apart.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, Final

import torch
import transformers

from hfexport.export_config.builtin import known_architectures
from hfexport.export_config.tasks import TASKS
from tiny import inferred

__all__ = ["INFERRED", "MISSES", "PAIRS", "VARIANTS", "make_checkpoint"]


def _families() -> tuple[ModuleType, ...]:
    """The modules beside this one, each with `CONFIGS` and `VARIANTS`; a new one is found by itself."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return tuple(importlib.import_module(f"{__name__}.{name}") for name in names)


INFERRED: Final[Mapping[str, str]] = MappingProxyType(
    {name: class_name for name, (class_name, _) in inferred.INFERRED.items() if name not in known_architectures()}
)
"""By `model_type`, those that no export config describes: the class of transformers that saves the model."""

MISSES: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {name: reason for name, (_, _, reason) in inferred.MISSES.items()}
)
"""By `model_type`, those that are known not to be exported: why, and a part of the error that shows it."""

_CLASSES: Final = {**INFERRED, **{name: class_name for name, (class_name, _, _) in inferred.MISSES.items()}}

CONFIGS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {name: inferred.INFERRED[name][1] for name in INFERRED}
    | {name: inferred.MISSES[name][1] for name in MISSES}
    | {name: values for module in _families() for name, values in module.CONFIGS.items()}
)
"""By `model_type`: the arguments of its config class."""

_QUERIES_AND_KEYS: Final = ("query", "key", "q_proj", "k_proj", "q_lin", "k_lin", "c_attn")
"""Parts of names of weights that are drawn larger, so that attention picks some tokens rather than averaging all."""

PAIRS: Final[tuple[tuple[str, str], ...]] = tuple(
    (model_type, task) for model_type, config in known_architectures().items() for task in config.tasks
)
"""Every (model_type, task) that hfexport says it exports."""

VARIANTS: Final[tuple[tuple[str, str, dict[str, Any]], ...]] = tuple(
    variant for module in _families() for variant in module.VARIANTS
)
"""Further (model_type, task, config changes) in which an architecture's graph differs."""


def make_checkpoint(
    folder: Path,
    model_type: str,
    task: str,
    *,
    seed: int = 0,
    tokenizer: bool = False,
    shards: int | None = None,
    dtype: str = "fp32",
    saved_by: str | None = None,
    **changes: Any,
) -> Path:
    """Write a checkpoint as `save_pretrained` writes it: config.json and safetensors.

    Args:
        folder: made if it is not there.
        model_type: a key of `CONFIGS`.
        task: the class that saves the model is this task's, or for `auto` the one that `inferred` names; a task with past has the checkpoint of the one without.
        seed: of the weights. The same seed gives the same files.
        tokenizer: also write a WordPiece tokenizer, or an image processor's config for image models.
        shards: about how many files to split the weights into.
        dtype: `fp32`, `fp16` or `bf16`, of the stored weights.
        saved_by: the class of transformers that saves the model, if not the task's.
        changes: config values to set otherwise than `CONFIGS` does.

    Returns:
        `folder`.
    """
    labels = ("start", "end") if task == "question-answering" else ("no", "maybe", "yes")
    values = {**CONFIGS[model_type], "id2label": dict(enumerate(labels)), **changes}
    config = transformers.AutoConfig.for_model(model_type, **values)
    with _quiet():
        if saved_by is not None or task == "auto":
            model = getattr(transformers, saved_by or _CLASSES[model_type])._from_config(config)
        else:
            auto_class = known_architectures()[model_type](config, TASKS[task]).auto_class
            model = getattr(transformers, auto_class).from_config(config)
        _fill(model, seed)
        model = model.to({"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[dtype])
        size_bytes = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
        limit = {} if shards is None else {"max_shard_size": -(-size_bytes // shards)}
        model.save_pretrained(folder, **limit)
    if tokenizer and hasattr(config, "vocab_size"):
        _write_tokenizer(folder, config.vocab_size)
    elif tokenizer:
        _write_image_processor(folder, getattr(config, "image_size", 224))
    return folder


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logging = transformers.utils.logging
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


@torch.no_grad()
def _fill(model: torch.nn.Module, seed: int) -> None:
    """Draw all weights and batch-norm statistics: activations stay near 1, attention far from uniform."""
    generator = torch.Generator().manual_seed(seed)
    norms = [module for module in model.modules() if "norm" in type(module).__name__.lower()]
    of_norms = {id(parameter) for module in norms for parameter in module.parameters(recurse=False)}

    def normal(tensor: torch.Tensor, deviation: float, mean: float = 0.0) -> None:
        tensor.normal_(mean, deviation, generator=generator)

    for name, parameter in model.named_parameters():
        if id(parameter) in of_norms:
            normal(parameter, 0.25, mean=0.8 if name.endswith("weight") else 0.1)
        elif "layer_scale" in name:
            normal(parameter, 0.2, mean=0.7)
        elif parameter.ndim < 2:
            normal(parameter, 0.2)
        elif "embed" in name and parameter.ndim < 4:  # a table; not the convolution that cuts patches
            normal(parameter, 0.4)
        else:
            fan_in = parameter[0].numel() if parameter.ndim > 2 else parameter.shape[-1]
            gain = 2.0 if any(part in name for part in _QUERIES_AND_KEYS) else 1.1
            normal(parameter, gain / fan_in**0.5)
    for module in norms:
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            normal(module.running_mean, 0.3)
            module.running_var.uniform_(0.5, 2.0, generator=generator)


def _write_tokenizer(folder: Path, vocabulary_size: int) -> None:
    """A WordPiece tokenizer whose ids all lie within the model's vocabulary."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = ["the", "cat", "sat", "on", "mat", "good", "bad", "film", "a", "was", ".", ",", "!", "?"]
    tokens = list(dict.fromkeys([*special, *words, *letters, *(f"##{letter}" for letter in letters)]))[:vocabulary_size]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    backend = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    roles = dict(zip(names, special, strict=True))
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **roles).save_pretrained(folder)
    # Files of older versions of the library, which published checkpoints still carry.
    (folder / "special_tokens_map.json").write_text(json.dumps(roles, indent=2) + "\n", encoding="utf-8")
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")


def _write_image_processor(folder: Path, size: int) -> None:
    config = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
