"""Select the export config, task, dtype and opset of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hfexport.checkpoint import Checkpoint, Contents
from hfexport.checkpoint.sentence import bare_task, read_sentence_modules
from hfexport.errors import CheckpointError, InputsError, UnsupportedError, first_line
from hfexport.export_config import DeclaredConfig, ExportConfig, Interface, Seq2SeqConfig, TensorSpec
from hfexport.export_config.builtin import known_architectures
from hfexport.export_config.tasks import (
    SENTENCE_TASK,
    TASKS,
    Task,
    declared_tasks,
    is_encoder_alone,
    select_task,
    sentence_task,
)
from hfexport.run.inputs import Inputs
from hfexport.run.inputs.parsers import FURTHER_OUTPUTS

if TYPE_CHECKING:
    from hfexport.export_config import SentenceModules
    from hfexport.modeling.user_class import OnnxConfig

__all__ = ["ConfigSource", "find_config", "look_up", "resolve_dtype", "resolve_opset"]

Note = Callable[[str], None]


@dataclass(frozen=True)
class ConfigSource:
    """Origin of the export config: a class in `builtin`, a user's class, or neither for inference from the model."""

    requested: str
    known: type[ExportConfig] | None = None
    task: Task | None = None
    own: type[OnnxConfig] | None = None
    sentence: SentenceModules | None = None


def look_up(contents: Contents, inputs: Inputs) -> ConfigSource:
    """Find the config's origin, and reject unsupported models, before torch is imported."""
    sentence = read_sentence_modules(contents.root) if inputs.task == SENTENCE_TASK else None
    requested = inputs.task
    if sentence is not None:
        requested = "default" if sentence.splade is None else "masked-lm"
    elif requested == "auto":
        bare, described = bare_task(contents.root), known_architectures().get(contents.model_type)
        requested = bare if bare and (described is None or bare in described.tasks) else requested
    if inputs.export_config is not None:
        from hfexport.modeling.user_class import load_class

        return ConfigSource(requested, own=load_class(inputs.export_config), sentence=sentence)
    known = known_architectures().get(contents.model_type)
    if known is None or (issubclass(known, Seq2SeqConfig) and is_encoder_alone(contents.architectures)):
        return ConfigSource(requested, sentence=sentence)
    task = select_task(
        requested,
        model_type=contents.model_type,
        architectures=contents.architectures,
        supported=known.tasks,
    )
    resolve_opset(inputs.opset, known)
    return ConfigSource(requested, known, task if sentence is None else sentence_task(sentence), sentence=sentence)


def _refuse_without_mask(config: ExportConfig) -> ExportConfig:
    if config.sentence is not None and not any(spec.name == "attention_mask" for spec in config.inputs):
        raise UnsupportedError(
            f"model_type {config.config.model_type!r} takes no attention mask, without which nothing can be pooled",
            remedy="Export task default, and pool outside.",
        )
    return config


def resolve_opset(requested: int | None, config: ExportConfig | type[ExportConfig]) -> int:
    """Return the ONNX opset to export to.

    Raises:
        InputsError: the architecture does not support the requested opset.
    """
    low, high = config.opsets
    opset = config.default_opset if requested is None else requested
    if not low <= opset <= high:
        asked = (
            f"opset {opset}"
            if requested is not None or isinstance(config, type)
            else f"{config.origin}: default_onnx_opset {opset}"
        )
        raise InputsError([f"{asked} is out of range: {low} to {high} are proved for this architecture"])
    return opset


def resolve_dtype(requested: str, checkpoint: Checkpoint, source: ConfigSource, note: Note) -> str:
    """Return `fp32` or `fp16`: the requested dtype, or that of the checkpoint if artifacts support it."""
    if requested != "auto":
        return requested
    if checkpoint.dtype == "fp16" and source.known is not None and not source.known.half_precision:
        note(f"{checkpoint.model_type} loses too much precision in float16; exported as fp32, without loss.")
        return "fp32"
    if checkpoint.dtype == "bf16":
        note("The checkpoint is bfloat16, which ONNX Runtime does not run on CPU; exported as fp32, without loss.")
    return "fp16" if checkpoint.dtype == "fp16" else "fp32"


def find_config(checkpoint: Checkpoint, source: ConfigSource, inputs: Inputs, dtype: str, note: Note) -> ExportConfig:
    """Return the export config: from `builtin`, from the user's class, or inferred from the model.

    Raises:
        UnsupportedError: the checkpoint lacks weights that the task (for `auto`, each of its tasks) needs.
    """
    from hfexport.modeling.whole import missing_weights, whole_tasks

    trust = inputs.trust_remote_code and _runs_own_code(checkpoint, note)
    model_config = _model_config(checkpoint, trust_remote_code=trust)
    drafted = _drafted(checkpoint, source, model_config, trust)
    missing = () if drafted is None else missing_weights(checkpoint, drafted)
    if drafted is not None and missing:
        whole = whole_tasks(checkpoint, model_config, source.known)
        declared = declared_tasks(checkpoint.architectures, whole)
        lacks = f"task {drafted.task.name} needs weights that the checkpoint does not have: {_listed(missing)}"
        if inputs.task != "auto" or not declared:
            raise UnsupportedError(
                f"{checkpoint.contents.folder}: {lacks}",
                remedy=f"The checkpoint has all weights for: {', '.join(whole)}."
                if whole
                else "Fine-tune the model for this task first.",
            )
        note(f"Exported for {declared[0]}: {lacks}")
        source = replace(source, requested=declared[0], task=None if source.known is None else TASKS[declared[0]])
    return _find_config(checkpoint, source, inputs, dtype, note, model_config=model_config, trust=trust)


def _drafted(checkpoint: Checkpoint, source: ConfigSource, model_config: Any, trust: bool) -> ExportConfig | None:
    """Return a config that suffices to load the model; `None` if a user's class or the model decides."""
    from hfexport.modeling.find_export_config import likely_task

    try:
        if source.known is not None and source.task is not None:
            return source.known(model_config, source.task, trust_remote_code=trust, sentence=source.sentence)
        if source.own is not None:
            return None
        task = likely_task(checkpoint, model_config, source.requested)
        return DeclaredConfig(model_config, task, Interface("", (), (), {}), trust_remote_code=trust)
    except (UnsupportedError, ValueError, TypeError, KeyError, AttributeError):
        return None  # the full error is raised where the config is made


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _find_config(
    checkpoint: Checkpoint,
    source: ConfigSource,
    inputs: Inputs,
    dtype: str,
    note: Note,
    *,
    model_config: Any,
    trust: bool,
) -> ExportConfig:
    if source.known is not None and source.task is not None:
        try:
            known = source.known(model_config, source.task, trust_remote_code=trust, sentence=source.sentence)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise _unreadable(checkpoint, error) from error
        return _refuse_without_mask(_with_more_outputs(known, checkpoint, inputs, dtype, note))
    from hfexport.modeling.find_export_config import find_export_config

    found = find_export_config(
        checkpoint,
        model_config,
        source.requested,
        dtype,
        own=None if source.own is None else (str(inputs.export_config), source.own),
        trust_remote_code=trust,
        note=note,
    )
    config = found
    if source.sentence is not None and isinstance(found, DeclaredConfig):
        task = replace(sentence_task(source.sentence), auto_class=found.auto_class)
        config = found.pooled(task, source.sentence)
    note(f"Interface {config.origin}: takes {_names(config.inputs)}; gives {_names(config.outputs)}")
    for name, value in found.interface.config_values.items():
        if getattr(model_config, name) != value:
            note(f"By {config.origin}, the model is called with {name} {value!r} in its config")
    return _refuse_without_mask(_with_more_outputs(config, checkpoint, inputs, dtype, note))


def _with_more_outputs(
    config: ExportConfig, checkpoint: Checkpoint, inputs: Inputs, dtype: str, note: Note
) -> ExportConfig:
    """Return `config` with the attentions and hidden states that the input `outputs` or config.json asks for."""
    kinds = inputs.outputs
    if kinds is None:
        kinds = tuple(kind for kind in FURTHER_OUTPUTS if checkpoint.config.get(f"output_{kind}") is True)
    if not kinds or config.sentence is not None:
        return config
    from hfexport.modeling.inferred.dry_run import DryModel
    from hfexport.modeling.inferred.more_outputs import with_more_outputs
    from hfexport.modeling.load import empty_model, load_model

    def build() -> DryModel:
        return DryModel(
            lambda mode: empty_model(config, dtype, mode), lambda: load_model(checkpoint.folder, config, dtype)
        )

    note(f"Further outputs: {', '.join(kinds)}")
    return with_more_outputs(config, kinds, build)


def _runs_own_code(checkpoint: Checkpoint, note: Note) -> bool:
    """Return whether the model's code is the checkpoint's, and not that of transformers for code in another repository.

    Raises:
        UnsupportedError: the code is in another repository, and transformers does not have the model.
    """
    from transformers import CONFIG_MAPPING

    listed = checkpoint.config.get("auto_map") or {}
    names = [str(name) for key, name in listed.items() if key.startswith(("AutoConfig", "AutoModel"))]
    elsewhere = sorted({name.partition("--")[0] for name in names if "--" in name})
    if not elsewhere:
        return True
    if checkpoint.model_type in CONFIG_MAPPING:
        note(
            f"auto_map points to code in {elsewhere[0]}, which is not run: transformers has {checkpoint.model_type} itself"
        )
        return False
    raise UnsupportedError(
        f"{checkpoint.contents.folder / 'config.json'}: auto_map takes the model's code from another repository,"
        f" {elsewhere[0]}, at no commit that could be checked",
        remedy="Copy its Python files beside config.json, read them, and name them in auto_map without the repository.",
    )


def _model_config(checkpoint: Checkpoint, *, trust_remote_code: bool) -> Any:
    """Read the model's `PreTrainedConfig`; code of the checkpoint runs only with the user's permission."""
    from transformers import CONFIG_MAPPING

    from hfexport.modeling.untrusted_config import read_model_config

    remote = "AutoConfig" in (checkpoint.config.get("auto_map") or {})
    if checkpoint.model_type not in CONFIG_MAPPING and not (remote and trust_remote_code):
        remedy = "Use a checkpoint of an architecture that this version of transformers has."
        if remote:
            remedy = "Its code comes with the checkpoint: read it, and run it with --trust-remote-code."
        raise UnsupportedError(
            f"model_type {checkpoint.model_type!r} in config.json is not an architecture of transformers", remedy=remedy
        )
    shown = checkpoint.contents.folder / "config.json"
    return read_model_config(checkpoint.folder, trust_remote_code=trust_remote_code, shown=shown)


def _names(specs: Sequence[TensorSpec]) -> str:
    """Return names for the user; all cache tensors are one name."""
    kinds = dict.fromkeys(spec.name.partition(".")[0] for spec in specs)
    return ", ".join(kinds)


def _unreadable(checkpoint: Checkpoint, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{checkpoint.contents.folder / 'config.json'}: transformers cannot read it: {first_line(error)}",
        remedy="Use the config.json that was saved with the model.",
    )
