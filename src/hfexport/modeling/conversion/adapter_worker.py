"""Child process that merges an adapter into its base with the `peft` library. See `hfexport._internal.workers`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import peft
import torch
import transformers
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.lora import LoraLayer
from peft.utils.save_and_load import set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file

from hfexport._internal.messages import read
from hfexport.checkpoint import safetensors_header, torch_file
from hfexport.checkpoint.json_file import read_bounded
from hfexport.errors import CheckpointError, UnsupportedError
from hfexport.modeling.conversion.messages import MergeJob
from hfexport.modeling.conversion.safetensors_writer import write_safetensors
from hfexport.modeling.load import quiet
from hfexport.modeling.untrusted_config import read_model_config, refuse_implausible

__all__ = ["run"]

_CLASSES: Final[Mapping[str, str]] = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "FEATURE_EXTRACTION": "AutoModel",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
}
"""Auto class of the base, by the adapter's `task_type`."""

_HEADS: Final = ("classifier", "classifier.out_proj", "score")
"""Names of modules whose weights have one row per label."""

_CHANGES_BASE: Final = ("pissa", "olora")
"""LoRA initialisations that subtract a part of the base's weights; peft does so again when it loads the adapter."""

_DTYPES: Final = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "fp64": torch.float64}
_PREFIX: Final = "base_model.model."
_FAILURES: Final = (ValueError, TypeError, KeyError, AttributeError, RuntimeError, NotImplementedError, SafetensorError)
"""Exceptions that peft and torch raise for adapters that do not fit."""


def run(job: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the adapter and write the result in the form of `save_pretrained`. Takes a `MergeJob`."""
    asked = read(job, MergeJob)
    folder, weights = Path(asked.folder), Path(asked.adapter_weights)
    staged = folder.with_name("adapter")
    staged.mkdir()
    try:
        given = _given(Path(asked.adapter), weights, staged)
        with quiet():
            config = peft.PeftConfig.from_pretrained(str(staged))
            _refuse_unmergeable(weights, config)
            model = _base(asked, config, given)
            _resize_vocabulary(model, given)
            merged = _merge(weights, model, config, given)
            merged.save_pretrained(folder)
    except _FAILURES as error:
        raise CheckpointError(
            f"{weights}: cannot be merged into {asked.base_name}: {_reason(error)}",
            remedy="Check that the base is the one that the adapter was trained on; base-model names another.",
        ) from error
    return {"peft": peft.__version__}


def _refuse_unmergeable(weights: Path, config: peft.PeftConfig) -> None:
    tuner = PEFT_TYPE_TO_TUNER_MAPPING.get(peft.PeftType(config.peft_type))
    if config.is_prompt_learning or not hasattr(tuner, "merge_and_unload"):
        raise UnsupportedError(
            f"{weights}: an adapter of type {config.peft_type} cannot be merged into a model",
            remedy="Adapters that change weights can, such as LoRA.",
        )


def _given(adapter: Path, weights: Path, staged: Path) -> dict[str, torch.Tensor]:
    """Convert the adapter's weights to safetensors beside a config without initialisation; return them."""
    config = json.loads(read_bounded(adapter / "adapter_config.json"))
    initial = str(config.get("init_lora_weights"))
    if "init_lora_weights" in config and not initial.startswith(_CHANGES_BASE):
        config["init_lora_weights"] = True  # some initialisations need data, and the weights replace the result
    (staged / "adapter_config.json").write_text(json.dumps({**config, "inference_mode": True}))
    path = staged / "adapter_model.safetensors"
    if weights.suffix == ".bin":
        write_safetensors(path, torch_file.stored_tensors(weights))
    else:
        safetensors_header.read_header(weights)
        shutil.copyfile(weights, path)
    return {
        ".".join(part for part in name.split(".") if part != "_orig_mod"): value
        for name, value in load_file(path).items()
    }


def _base(job: MergeJob, config: peft.PeftConfig, given: Mapping[str, torch.Tensor]) -> Any:
    """Load the base with its own weights; only weights that the adapter contains may be missing."""
    model_config = read_model_config(Path(job.base))
    name, model_class = _model_class(config, model_config, bare=job.bare)
    labels = [len(given[key]) for head in _HEADS if (key := f"{_PREFIX}{head}.weight") in given]
    if labels and model_config.num_labels != labels[0]:
        model_config.num_labels = labels[0]
    refuse_implausible(Path(job.base), lambda: _on_meta(model_class, model_config))

    def load(**kwargs: Any) -> tuple[Any, set[str]]:
        model, info = model_class.from_pretrained(
            job.base,
            config=model_config,
            dtype=_DTYPES[job.dtype],
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **kwargs,
        )
        brought = {key.removeprefix(_PREFIX) for key in given}
        return model, {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])} - brought

    model, lacking = load()
    if name == "AutoModel" and lacking and all(key.startswith("pooler.") for key in lacking):
        model, lacking = load(add_pooling_layer=False)  # a checkpoint with a head has no pooler
    if lacking:
        raise UnsupportedError(
            f"{job.base_name}: as {name} it needs weights that neither it nor the adapter has: {_listed(lacking)}",
            remedy="Use the adapter with the base that it was trained on.",
        )
    return model.eval()


def _on_meta(model_class: Any, model_config: Any) -> Any:
    with torch.device("meta"):
        return getattr(model_class, "from_config", model_class)(model_config)


def _model_class(config: peft.PeftConfig, model_config: Any, *, bare: bool) -> tuple[str, Any]:
    """Return the class that the adapter was trained on: by its task, by the stored name, or the base's own class.

    Args:
        config: config of the adapter.
        model_config: config of the base.
        bare: the adapter belongs to sentence-transformers, which loads the bare model.
    """
    kept = (config.auto_mapping or {}).get("base_model_class")
    own = str(kept or next(iter(model_config.architectures or ()), ""))
    name = "AutoModel" if bare else _CLASSES.get(str(config.task_type), own)
    found = getattr(transformers, name, None)
    is_model = isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)
    if found is None or not (is_model or name in _CLASSES.values()):
        raise UnsupportedError(
            f"the adapter's task {config.task_type or 'is not named, and its class'} {name} is none of transformers",
            remedy="Merge it with `merge_and_unload` of peft, and export the result.",
        )
    return name, found


def _resize_vocabulary(model: Any, given: Mapping[str, torch.Tensor]) -> None:
    """Resize the base's embeddings to those of the adapter, whose values replace the new rows."""
    current = model.get_input_embeddings()
    if not isinstance(current, torch.nn.Embedding):
        return
    rows = {current.num_embeddings}
    for module in (current, model.get_output_embeddings()):
        name = next((name for name, found in model.named_modules() if module is not None and found is module), None)
        for part in ("weight", "base_layer.weight") if name is not None else ():
            if (weight := given.get(f"{_PREFIX}{name}.{part}")) is not None:
                rows.add(len(weight))
    if max(rows) > current.num_embeddings:
        model.resize_token_embeddings(max(rows), mean_resizing=False)


def _stored_twice(key: str, given: Mapping[str, torch.Tensor]) -> bool:
    """Return whether `key` is a resized embedding that peft stores under two names and reads under one."""
    for part in (".modules_to_save", ".original_module"):
        name, found, rest = key.rpartition(part)
        if found and name + rest in given:
            return part == ".original_module" or torch.equal(given[key], given[name + rest])
    return False


def _separate_tied(adapted: Any) -> None:
    """Before merging LoRA into one of two tied embeddings, give the other one its own unchanged weights."""
    first, second = adapted.get_input_embeddings(), adapted.get_output_embeddings()
    if not any(isinstance(layer, LoraLayer) for layer in (first, second)):
        return
    own: list[Any] = [getattr(layer, "base_layer", layer) for layer in (first, second)]
    if own[0] is not None and own[1] is not None and own[0].weight is own[1].weight:
        own[1].weight = torch.nn.Parameter(own[1].weight.detach().clone())


def _untie(model: Any) -> None:
    """Untie embeddings of which the adapter changed one, so that both are stored with the values they have in peft."""
    first, second = model.get_input_embeddings(), model.get_output_embeddings()
    if first is None or second is None or first.weight is second.weight or torch.equal(first.weight, second.weight):
        return
    for config in (model.config, model.config.get_text_config()):
        if getattr(config, "tie_word_embeddings", False):
            config.tie_word_embeddings = False
    model.all_tied_weights_keys = {}


def _merge(weights: Path, model: Any, config: peft.PeftConfig, given: dict[str, torch.Tensor]) -> Any:
    """Return the base with the adapter merged in; every adapter weight must have a place in the base."""
    adapted = peft.get_peft_model(model, config)
    wanted = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False)
    result: Any = set_peft_model_state_dict(adapted, given)
    missing = wanted.keys() - given.keys()
    strays = {key for key in result.unexpected_keys if not _stored_twice(key, given)}
    if missing or strays:
        what = f"lacks {_listed(missing)}" if missing else f"holds {_listed(strays)}, which its base has no place for"
        raise CheckpointError(
            f"{weights}: {what}", remedy="Check that the base is the one that the adapter was trained on."
        )
    _separate_tied(adapted)
    merged: Any = adapted.merge_and_unload(safe_merge=True)
    _untie(merged)
    merged.config.architectures = [type(merged).__name__]
    return merged


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - 5} more" if len(ordered) > 5 else ""
    return ", ".join(ordered[:5]) + more


def _reason(error: Exception) -> str:
    """Return an error of the library as one line; it spreads names and sizes of weights over several."""
    return " ".join(str(error).split())[:600] or type(error).__name__
