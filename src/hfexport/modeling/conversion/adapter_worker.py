"""The child in which an adapter is merged into its base, by the `peft` library. See `hfexport._internal.workers`."""

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
from peft.utils.save_and_load import set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file

from hfexport.checkpoint import safetensors_header, torch_file
from hfexport.errors import CheckpointError, UnsupportedError
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
"""By `task_type` of the adapter: the class that it changes."""

_HEADS: Final = ("classifier", "classifier.out_proj", "score")
"""Modules whose weights have a row for each label."""

_DTYPES: Final = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "fp64": torch.float64}
_PREFIX: Final = "base_model.model."
_FAILURES: Final = (ValueError, TypeError, KeyError, AttributeError, RuntimeError, NotImplementedError, SafetensorError)
"""What peft and torch raise for adapters that do not fit."""


def run(job: Mapping[str, Any]) -> dict[str, Any]:
    """Merge, and write the result as `save_pretrained` does.

    Args:
        job: `adapter` (folder), `adapter_weights` (path), `base` (folder), `base_name` for messages, `dtype` of the
            base, and `folder`.
    """
    folder, weights = Path(job["folder"]), Path(job["adapter_weights"])
    staged = folder.with_name("adapter")
    staged.mkdir()
    try:
        given = _given(Path(job["adapter"]), weights, staged)
        with quiet():
            config = peft.PeftConfig.from_pretrained(str(staged))
            _refuse_unmergeable(weights, config)
            model = _base(job, config, given)
            merged = _merge(weights, model, config, given)
            merged.save_pretrained(folder)
    except _FAILURES as error:
        raise CheckpointError(
            f"{weights}: cannot be merged into {job['base_name']}: {_first_line(error)}",
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
    """The adapter's weights, by way of safetensors, beside a config that initialises nothing."""
    config = json.loads((adapter / "adapter_config.json").read_bytes())
    if "init_lora_weights" in config:  # some ways to initialise decompose the base, only to be overwritten
        config["init_lora_weights"] = True
    (staged / "adapter_config.json").write_text(json.dumps({**config, "inference_mode": True}))
    path = staged / "adapter_model.safetensors"
    if weights.suffix == ".bin":
        write_safetensors(path, torch_file.stored_tensors(weights))
    else:
        safetensors_header.read_header(weights)
        shutil.copyfile(weights, path)
    return load_file(path)


def _base(job: Mapping[str, Any], config: peft.PeftConfig, given: Mapping[str, torch.Tensor]) -> Any:
    """The base with its own weights; only what the adapter brings may be missing from it."""
    model_config = read_model_config(Path(job["base"]))
    name, model_class = _model_class(config, model_config)
    labels = [len(given[key]) for head in _HEADS if (key := f"{_PREFIX}{head}.weight") in given]
    if labels and model_config.num_labels != labels[0]:
        model_config.num_labels = labels[0]
    refuse_implausible(Path(job["base"]), lambda: _on_meta(model_class, model_config))
    model, info = model_class.from_pretrained(
        job["base"],
        config=model_config,
        dtype=_DTYPES[job["dtype"]],
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    brought = {key.removeprefix(_PREFIX) for key in given}
    lacking = {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])} - brought
    if lacking:
        raise UnsupportedError(
            f"{job['base_name']}: as {name} it needs weights that neither it nor the adapter has: {_listed(lacking)}",
            remedy="Use the adapter with the base that it was trained on.",
        )
    return model.eval()


def _on_meta(model_class: Any, model_config: Any) -> Any:
    with torch.device("meta"):
        return getattr(model_class, "from_config", model_class)(model_config)


def _model_class(config: peft.PeftConfig, model_config: Any) -> tuple[str, Any]:
    """The class that the adapter was trained on: by its task, by the name it keeps, or else the base's own."""
    kept = (config.auto_mapping or {}).get("base_model_class")
    own = str(kept or next(iter(model_config.architectures or ()), ""))
    name = _CLASSES.get(str(config.task_type), own)
    found = getattr(transformers, name, None)
    is_model = isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)
    if found is None or not (is_model or name in _CLASSES.values()):
        raise UnsupportedError(
            f"the adapter's task {config.task_type or 'is not named, and its class'} {name} is none of transformers",
            remedy="Merge it with `merge_and_unload` of peft, and export the result.",
        )
    return name, found


def _merge(weights: Path, model: Any, config: peft.PeftConfig, given: dict[str, torch.Tensor]) -> Any:
    """The base with the adapter's change in its weights; every weight of the adapter must find its place."""
    adapted = peft.get_peft_model(model, config)
    wanted = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False)
    result: Any = set_peft_model_state_dict(adapted, given)
    missing, strays = wanted.keys() - given.keys(), set(result.unexpected_keys)
    if missing or strays:
        what = f"lacks {_listed(missing)}" if missing else f"holds {_listed(strays)}, which its base has no place for"
        raise CheckpointError(
            f"{weights}: {what}", remedy="Check that the base is the one that the adapter was trained on."
        )
    merged: Any = adapted.merge_and_unload(safe_merge=True)
    merged.config.architectures = [type(merged).__name__]
    return merged


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - 5} more" if len(ordered) > 5 else ""
    return ", ".join(ordered[:5]) + more


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
