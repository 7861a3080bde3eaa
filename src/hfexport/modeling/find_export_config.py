"""Find the export config of a checkpoint that no file of `export_config/builtin` describes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import transformers

from hfexport._internal.upstream.models import model_mapping
from hfexport.checkpoint.json_file import read_bounded
from hfexport.errors import MODEL_FAILURES, CheckpointError, InputsError, UnsupportedError
from hfexport.export_config import DeclaredConfig, DeclaredSeq2Seq, Interface
from hfexport.export_config.tasks import TASKS, Task, is_encoder_alone, select_task
from hfexport.modeling.inferred.dry_run import DryModel
from hfexport.modeling.inferred.infer import infer
from hfexport.modeling.inferred.measure import image_shape
from hfexport.modeling.load import empty_model, load_model
from hfexport.modeling.user_class.adapt import declare
from hfexport.modeling.user_class.dummies import load_preprocessor
from hfexport.modeling.user_class.onnx_config import OnnxConfig, OnnxConfigWithPast, OnnxSeq2SeqConfigWithPast
from hfexport.modeling.user_class.properties import config_values

if TYPE_CHECKING:
    from hfexport.checkpoint import Checkpoint

__all__ = ["find_export_config", "likely_task"]


def find_export_config(
    checkpoint: Checkpoint,
    model_config: Any,
    requested: str,
    dtype: str,
    *,
    own: tuple[str, type[OnnxConfig]] | None,
    trust_remote_code: bool,
    note: Callable[[str], None],
) -> DeclaredConfig | DeclaredSeq2Seq:
    """Return the export config of the user's class, or infer one from the model.

    Args:
        checkpoint: opened checkpoint.
        model_config: its `PreTrainedConfig`.
        requested: `auto`, or the name of a task.
        dtype: `fp32` or `fp16`.
        own: reference (`path/file.py:Class`) and class of the user.
        trust_remote_code: the model's class may be code from the checkpoint.
        note: called with notes for the user.

    Raises:
        InputsError: the user's class does not fit itself or the model.
        UnsupportedError: the checkpoint does not have the task, or its interface cannot be inferred.
    """

    def dry_model(task: Task, values: Mapping[str, Any] = MappingProxyType({})) -> DryModel:
        nothing = Interface("", (), (), {}, config_values=values)
        draft = DeclaredConfig(model_config, task, nothing, trust_remote_code=trust_remote_code)
        try:
            return DryModel(
                lambda mode: empty_model(draft, dtype, mode), lambda: load_model(checkpoint.folder, draft, dtype)
            )
        except MODEL_FAILURES as error:
            raise UnsupportedError(
                f"model_type {checkpoint.model_type!r} cannot be built for task {task.name}: {error}",
                remedy="Check config.json, and that this version of transformers knows the architecture.",
            ) from error

    task = _task(checkpoint, model_config, requested, own)
    preprocessor = _preprocessor_config(checkpoint.folder)
    if own is not None:
        origin, own_class = own
        instance = _instance(own_class, origin, model_config, task)
        return declare(
            instance,
            origin,
            dry_model(task, config_values(instance, origin)),
            lambda: load_preprocessor(str(checkpoint.folder)),
            images=image_shape(model_config, preprocessor),
            trust_remote_code=trust_remote_code,
        )
    try:
        try:
            return infer(model_config, task, dry_model(task), preprocessor, trust_remote_code=trust_remote_code)
        except UnsupportedError:
            if dtype == "fp32":
                raise
            # The model may not run in float16 at all; its interface is the same in both, and the reference decides.
            dtype = "fp32"
            return infer(model_config, task, dry_model(task), preprocessor, trust_remote_code=trust_remote_code)
    except UnsupportedError as error:
        without = task.name.removesuffix("-with-past")
        if requested != "auto" or without == task.name:
            raise
        note(f"Exported for {without} rather than {task.name}: {error.message}")
    task = TASKS[without]
    return infer(model_config, task, dry_model(task), preprocessor, trust_remote_code=trust_remote_code)


def likely_task(checkpoint: Checkpoint, model_config: Any, requested: str) -> Task:
    """Return the task that an interface will be inferred for, as far as the checkpoint's files tell.

    Raises:
        UnsupportedError: the checkpoint has no head for the task.
    """
    return _task(checkpoint, model_config, requested, None)


def _instance(own_class: type[OnnxConfig], origin: str, model_config: Any, task: Task) -> OnnxConfig:
    name = task.name.removesuffix("-with-past")
    if task.with_past and not issubclass(own_class, OnnxConfigWithPast):
        raise InputsError([f"{origin}: task {task.name} has a cache, so the class must be an OnnxConfigWithPast"])
    try:
        if issubclass(own_class, OnnxConfigWithPast):
            return own_class(model_config, task=name, use_past=task.with_past)
        return own_class(model_config, task=name)
    except MODEL_FAILURES as error:
        raise InputsError([f"{origin}: cannot be made: {type(error).__name__}: {error}"]) from error


def _task(checkpoint: Checkpoint, model_config: Any, requested: str, own: tuple[str, type[OnnxConfig]] | None) -> Task:
    """Return the task to export for, whose head the checkpoint has. `auto` also accepts a head without a named task."""
    saved = next(iter(checkpoint.architectures), "")
    if own is None and is_encoder_alone(checkpoint.architectures) and hasattr(transformers, saved):
        default = select_task(
            requested, model_type=checkpoint.model_type, architectures=(saved,), supported=("default",)
        )
        return replace(default, auto_class=saved)
    both = own is not None and issubclass(own[1], OnnxSeq2SeqConfigWithPast)
    supported = _loadable(checkpoint, model_config, caches=both)
    if own is not None and not (issubclass(own[1], OnnxConfigWithPast) and _has_cache(own[1], model_config, requested)):
        supported = tuple(name for name in supported if not TASKS[name].with_past)
    try:
        return select_task(
            requested,
            model_type=checkpoint.model_type,
            architectures=checkpoint.architectures,
            supported=supported,
        )
    except UnsupportedError:
        if requested != "auto" or own is not None or not hasattr(transformers, saved):
            raise
        return _as_saved(saved)


def _as_saved(class_name: str) -> Task:
    """Return a task for a class of transformers that no task in `TASKS` loads, named after its head."""
    head = class_name.rpartition("For")[2] if "For" in class_name else class_name
    name = "-".join(part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z0-9]*|[0-9]+", head))
    return Task(name, class_name, (head,), MappingProxyType({}))


def _has_cache(own_class: type[OnnxConfigWithPast], model_config: Any, requested: str) -> bool:
    """Return whether the class is given a cache; an encoder-decoder gets one only if its task says so."""
    if requested != "auto" or not issubclass(own_class, OnnxSeq2SeqConfigWithPast):
        return True
    try:
        return any(name.startswith("past_key_values.") for name in own_class.with_past(model_config).inputs)
    except MODEL_FAILURES:
        return False


def _loadable(checkpoint: Checkpoint, model_config: Any, *, caches: bool) -> tuple[str, ...]:
    """Return tasks whose auto class has a model for this config; with a cache for decoders, or if `caches`."""
    remote = checkpoint.config.get("auto_map") or {}

    def has(auto_class: str) -> bool:
        mapping = model_mapping(auto_class)
        return auto_class in remote or type(model_config) in mapping

    decodes = caches or (has("AutoModelForCausalLM") and not has("AutoModelForMaskedLM"))
    return tuple(name for name, task in TASKS.items() if has(task.auto_class) and (decodes or not task.with_past))


def _preprocessor_config(folder: Path) -> dict[str, Any]:
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return {}
    try:
        values = json.loads(read_bounded(path))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: is not valid JSON: {error}", remedy="Correct or restore the file.") from error
    return values if isinstance(values, dict) else {}
