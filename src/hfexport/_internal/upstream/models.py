"""Private parts of the models and model classes of transformers."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Final

from hfexport._internal.upstream.checked import Part, check

__all__ = [
    "MODEL_PARTS",
    "PARTS",
    "attend_eagerly",
    "attention_of",
    "check_model",
    "from_config",
    "kept_dtypes",
    "loader_placing",
    "loader_renaming",
    "model_mapping",
    "replaced_part",
]

_LOADING = "transformers.core_model_loading"
_MODELS = "transformers.models"
_SCAN = (
    *("hidden_states", "dt", "A", "B", "C", "D", "z", "delta_bias", "delta_softplus", "return_last_state"),
    *("use_mambapy", "use_associative_scan", "kwargs"),
)

PARTS: Final = (
    Part("transformers", "AutoModel._model_mapping", "model class of a task, by config class"),
    Part(
        "transformers", "PreTrainedModel._from_config", "builds a model of a class from a config", ("config", "kwargs")
    ),
    Part(
        "transformers.conversion_mapping",
        "get_model_conversion_mapping",
        "the loader's own renaming of weights",
        ("model", "key_mapping", "hf_quantizer", "add_legacy"),
    ),
    Part(_LOADING, "WeightRenaming", "the loader's own renaming of weights"),
    Part(
        _LOADING,
        "rename_source_key",
        "the loader's own renaming of weights",
        ("source_key", "weight_renamings", "weight_converters", "base_model_prefix", "meta_state_dict", "reverse"),
    ),
    Part("transformers", "PreTrainedModel._get_dtype_plan", "which weights stay in fp32", ("self", "dtype")),
    Part(_LOADING, "build_glob_alternation", "which weights stay in fp32", ("globs",)),
)


def _scan(model_type: str) -> tuple[Part, ...]:
    module = f"{_MODELS}.{model_type}.modeling_{model_type}"
    return (Part(module, "mamba_selective_scan", "replaced: its loop is unrolled by tracers", _SCAN),)


_ENCODEC = f"{_MODELS}.encodec.modeling_encodec"
_LONGT5 = f"{_MODELS}.longt5.modeling_longt5"

MODEL_PARTS: Final[Mapping[str, tuple[Part, ...]]] = MappingProxyType(
    {
        **{model_type: _scan(model_type) for model_type in ("falcon_mamba", "jamba", "mamba")},
        "canine": (
            Part(
                f"{_MODELS}.canine.modeling_canine",
                "CanineModel._repeat_molecules",
                "overridden: the number of repetitions is taken as settled",
                ("self", "molecules", "char_seq_length"),
            ),
            Part(
                f"{_MODELS}.canine.modeling_canine",
                "CanineModel._downsample_attention_mask",
                "overridden: the length is taken as settled",
                ("self", "char_attention_mask", "downsampling_rate"),
            ),
        ),
        "encodec": (
            Part(
                _ENCODEC, "EncodecModel._encode_frame", "called by its rewrite", ("self", "input_values", "bandwidth")
            ),
            Part(_ENCODEC, "EncodecModel._decode_frame", "called by its rewrite", ("self", "codes", "scale")),
        ),
        "longformer": (
            Part(
                f"{_MODELS}.longformer.modeling_longformer",
                "LongformerModel._pad_to_window_size",
                "overridden: padding to the window fixes the length",
                (
                    *("self", "input_ids", "attention_mask", "token_type_ids", "position_ids", "inputs_embeds"),
                    "pad_token_id",
                ),
            ),
        ),
        "longt5": (
            Part(_LONGT5, "_split_into_blocks", "replaced: it looks at the length", ("x", "block_len", "dim")),
            Part(
                _LONGT5,
                "_create_global_aggregates",
                "replaced: its number of classes is taken as settled",
                ("hidden_states", "block_ids", "global_seq_len"),
            ),
        ),
        "moonshine": (
            Part(
                f"{_MODELS}.moonshine.modeling_moonshine",
                "MoonshinePreTrainedModel._get_feat_extract_output_lengths",
                "replaced: it rounds in Python",
                ("self", "input_lengths"),
            ),
        ),
    }
)
"""Private functions of models that hfexport replaces, overrides or calls, by model type."""


def check_model(model_type: str) -> None:
    """Check the private functions of one architecture that hfexport relies on.

    Raises:
        UpstreamError: a function is missing, or takes other parameters.
    """
    if parts := MODEL_PARTS.get(model_type):
        check("transformers", *parts)


@contextmanager
def replaced_part(model_type: str, name: str, replacement: Any) -> Iterator[None]:
    """Replace one of the `MODEL_PARTS` of a model type while this context is open.

    Args:
        model_type: architecture of the model.
        name: name of the part in `MODEL_PARTS`.
        replacement: function with the same parameters.

    Raises:
        UpstreamError: transformers has no such part.
    """
    part = next(part for part in MODEL_PARTS[model_type] if part.name == name)
    check("transformers", part)
    *classes, attribute = part.name.split(".")
    owner = importlib.import_module(part.module)
    for one in classes:
        owner = getattr(owner, one)
    original = vars(owner)[attribute]
    setattr(owner, attribute, replacement)
    try:
        yield
    finally:
        setattr(owner, attribute, original)


def model_mapping(auto_class: str) -> Mapping[Any, Any]:
    """Return the model classes of an auto class such as `AutoModelForMaskedLM`, by config class."""
    import transformers

    check("transformers", PARTS[0])
    return getattr(transformers, auto_class)._model_mapping  # type: ignore[no-any-return]


def from_config(model: Any, config: Any, **settings: Any) -> Any:
    """Build a new model of the class of `model` from `config`, with settings such as `dtype` and `attn_implementation`."""
    check("transformers", PARTS[1])
    return type(model)._from_config(config, **settings)


def attention_of(config: Any) -> Any:
    """Return the implementation of attention that a model's config selects."""
    return config._attn_implementation


def attend_eagerly(config: Any) -> None:
    """Select eager attention for models of `config`, including models that were built with another setting."""
    config._attn_implementation = "eager"


def loader_renaming(model: Any) -> Any:
    """Return the function by which `from_pretrained` renames a checkpoint's weight.

    It takes the name of the weight, and the weights of the model by name.
    """
    check("transformers", *PARTS[2:5])
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    rules = [rule for rule in get_model_conversion_mapping(model) if isinstance(rule, WeightRenaming)]
    return lambda name, wanted: rename_source_key(name, rules, [], model.base_model_prefix, dict(wanted))[0]


def loader_placing(model: Any) -> Any:
    """Return a function that gives the name of the model's weight that a checkpoint's weight becomes or is merged into.

    It takes the same arguments as the result of `loader_renaming`.
    """
    check("transformers", *PARTS[2:5])
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    merges: Any = [rule for rule in rules if not isinstance(rule, WeightRenaming)]
    return lambda name, wanted: rename_source_key(name, renamings, merges, model.base_model_prefix, dict(wanted))[0]


def kept_dtypes(model: Any, dtype: Any) -> Any:
    """Return the function by which `from_pretrained` keeps weights in another dtype than the requested one.

    It takes the name of a weight of `model`, and returns a torch dtype; `None` for a weight in the requested dtype.
    """
    check("transformers", *PARTS[5:])
    from transformers.core_model_loading import build_glob_alternation

    plan = model._get_dtype_plan(dtype)
    if not plan:
        return {}.get
    pattern, groups, _ = build_glob_alternation(list(plan))

    def kept(name: str) -> Any:
        found = pattern.search(name)
        return None if found is None else plan[groups[str(found.lastgroup)]]

    return kept
