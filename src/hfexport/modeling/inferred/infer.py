"""Infer an interface from a model: its `forward`, its config, its preprocessor's config, and a run.

Inference may be wrong: each inferred interface is exported and validated as strictly as any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

from hfexport.errors import UnsupportedError
from hfexport.export_config import Axis, DeclaredConfig, Interface, Limit, Role, TensorSpec
from hfexport.export_config.tasks import Task
from hfexport.modeling.inferred.dry_run import DryModel, Refused
from hfexport.modeling.inferred.measure import (
    decoder_vocabulary_size,
    fix_refused_axes,
    image_shape,
    lower_refused_maximum,
    measured_outputs,
    position_limit,
    raise_refused_minimum,
    thresholds,
    trace_sizes,
    vocabulary_size,
)

__all__ = ["ORIGIN", "infer"]

ORIGIN: Final = "inferred from the model"

TOTAL: Final = "past_sequence + sequence"

_AUDIO_SAMPLES: Final = 4000
"""Audio samples in the traced example: more than the receptive field of the convolutions at common strides."""

_NO_OUTPUT: Final = ("loss", "hidden_states", "attentions", "rope_deltas")


def infer(
    model_config: Any, task: Task, dry: DryModel, preprocessor: Mapping[str, Any], *, trust_remote_code: bool = False
) -> DeclaredConfig:
    """Return the export config of a model that no file describes.

    Args:
        model_config: the model's `PreTrainedConfig`.
        task: task to export for.
        dry: model without data.
        preprocessor: content of preprocessor_config.json; empty if there is none.
        trust_remote_code: the model's class is code from the checkpoint.

    Raises:
        UnsupportedError: the interface cannot be inferred; the message gives the reason.
    """
    reader = _Reader(model_config, task, dry, preprocessor)
    inputs, known = reader.inputs()
    text_config = reader.text_config
    limit = position_limit(dry.module, text_config, "encoder")
    limits = _limits(reader, limit, position_limit(dry.module, text_config, "decoder"))
    interface = Interface(
        origin=ORIGIN,
        inputs=inputs,
        outputs=(),
        trace_sizes=trace_sizes(inputs, known, limits),
        limits=limits,
        thresholds=thresholds(text_config, "past_sequence" if task.with_past else "sequence", limit),
        vocabulary_size=vocabulary_size(dry.module, text_config),
        decoder_vocabulary_size=decoder_vocabulary_size(dry.module),
        image_tokens=reader.image_tokens,
    )
    config = DeclaredConfig(model_config, task, interface, trust_remote_code=trust_remote_code)
    try:
        config = raise_refused_minimum(dry, fix_refused_axes(dry, config))
        config = lower_refused_maximum(dry, config)
        outputs = _chosen(measured_outputs(dry, config))
    except (Refused, ValueError, LookupError) as error:
        names = ", ".join(spec.name for spec in inputs)
        raise reader.unknown(f"its forward does not take {names}: {error}") from error
    if not outputs:
        raise reader.unknown("a run of it gives no tensor under a name")
    interface = replace(config.interface, outputs=outputs)
    return DeclaredConfig(model_config, task, interface, trust_remote_code=trust_remote_code)


def _limits(reader: _Reader, positions: int | None, decoder_positions: int | None) -> dict[str, Limit]:
    limits: dict[str, Limit] = {}
    if positions is not None:
        limits["sequence"] = Limit(1, positions)
    if decoder_positions is not None:
        limits["decoder_sequence"] = Limit(1, decoder_positions)
    if reader.image_tokens:
        limits["sequence"] = Limit(reader.image_tokens + 1, positions)
    if reader.task.with_past:
        limits["past_sequence"] = Limit(0, None if positions is None else positions - 1)
    no_padding = getattr(reader.text_config, "pad_token_id", None) is None
    if reader.task.name == "sequence-classification" and reader.is_decoder and no_padding:
        limits["batch"] = Limit(1, 1)  # transformers cannot find the end of each row, and rejects batches
    return limits


def _chosen(given: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """Return the outputs to export: all, except a pooler of the hidden states beside them."""
    names = [spec.name for spec in given]
    left_out = {*_NO_OUTPUT, *(["pooler_output"] if "last_hidden_state" in names else [])}
    return tuple(spec for spec in given if spec.name.partition(".")[0] not in left_out)


@dataclass(frozen=True)
class _Reader:
    """Read the interface of a model."""

    config: Any
    task: Task
    dry: DryModel
    preprocessor: Mapping[str, Any]

    @property
    def text_config(self) -> Any:
        return self.config.get_text_config() if hasattr(self.config, "get_text_config") else self.config

    @property
    def is_decoder(self) -> bool:
        """Return whether `forward` takes a cache, as that of decoders does."""
        return "past_key_values" in self.dry.parameters and "decoder_input_ids" not in self.dry.parameters

    def unknown(self, why: str) -> UnsupportedError:
        return UnsupportedError(
            f"the interface of {type(self.dry.module).__name__} (model_type {self.config.model_type!r}) cannot be inferred"
            f" for task {self.task.name}: {why}",
            remedy="Describe it with --export-config path/file.py:Class; docs/adding-an-architecture.md tells how.",
        )

    @cached_property
    def image_tokens(self) -> int:
        """Return the number of placeholders that image features replace in a text; 0 if the model merges none."""
        if getattr(self.config, "image_token_id", None) is None or "pixel_values" not in self.dry.parameters:
            return 0
        return self.dry.image_features(image_shape(self.config, self.preprocessor))

    def inputs(self) -> tuple[tuple[TensorSpec, ...], dict[str, int]]:
        """Return the inputs in the order of `forward`, and the known sizes of axes."""
        readers = {
            "input_ids": self._text,
            "pixel_values": self._image,
            "input_values": self._sound,
            "input_features": self._features,
            "past_values": self._series,
        }
        specs: list[TensorSpec] = []
        known: dict[str, int] = {}
        main = str(getattr(self.dry.module, "main_input_name", "input_ids"))
        names = [main, *(name for name in self.dry.required if name != main and name in readers)]
        if main == "input_ids" and "pixel_values" in self.dry.parameters and hasattr(self.config, "vision_config"):
            names.append("pixel_values")
        if main == "input_ids" and "input_features" in self.dry.parameters and hasattr(self.config, "audio_config"):
            names.append("input_features")
        for name in dict.fromkeys(names):
            if name not in readers:
                raise self.unknown(f"nothing is known of its main input {name}")
            found, sizes = readers[name]()
            specs += found
            known |= sizes
        if "decoder_input_ids" in self.dry.parameters:
            specs.append(TensorSpec("decoder_input_ids", ("batch", "decoder_sequence"), "int64", "token_ids"))
        missing = sorted(set(self.dry.required) - {spec.name for spec in specs})
        if missing:
            raise self.unknown(f"its forward needs {', '.join(missing)}, of which nothing is known")
        return tuple(specs), known

    def _text(self) -> tuple[list[TensorSpec], dict[str, int]]:
        axes: tuple[Axis, ...] = ("batch", "sequence")
        if self.task.name == "multiple-choice":
            axes = ("batch", "choice", "sequence")
        mask_axes = (*axes[:-1], TOTAL if self.task.with_past else "sequence")
        role: Role = "image_text_ids" if self.image_tokens else "token_ids"
        takes, specs = self.dry.parameters, [TensorSpec("input_ids", axes, "int64", role)]
        if "attention_mask" in takes:
            specs.append(TensorSpec("attention_mask", mask_axes, "int64", "attention_mask"))
        if "token_type_ids" in takes and int(getattr(self.text_config, "type_vocab_size", 0) or 0) > 1:
            specs.append(TensorSpec("token_type_ids", axes, "int64", "token_type_ids"))
        if self.is_decoder and self.task.name.startswith(("causal-lm", "default-with")) and self._counts_positions():
            specs.append(TensorSpec("position_ids", axes, "int64", "position_ids"))
        blocks = getattr(self.text_config, "local_transformer_stride", None)
        # With a second block of characters; otherwise a trace records that there is only one.
        known = {"sequence": blocks + 7} if isinstance(blocks, int) else {}
        return specs + (self._cache() if self.task.with_past else []), known

    def _counts_positions(self) -> bool:
        """Return whether the model takes `position_ids` and uses them."""
        import numpy as np

        ids = np.ones((2, 7), dtype=np.int64)
        takes = self.dry.parameters
        # Include the mask; without it the model may use positions to separate packed texts.
        inputs = {name: ids for name in ("input_ids", "attention_mask", "position_ids") if name in takes}
        try:
            return "position_ids" in takes and self.dry.uses("position_ids", inputs)
        except Refused:
            return True  # the error appears again once the inputs are known

    def _cache(self) -> list[TensorSpec]:
        """Return the cache tensors that a run without cache returns."""
        import numpy as np

        ids = np.ones((2, 7), dtype=np.int64)
        try:
            given = self.dry.run({"input_ids": ids, "attention_mask": ids}, use_cache=True)
        except Refused as error:
            raise self.unknown(f"it does not run with a cache: {error}") from error
        cached = {name: found.shape for name, found in given.items() if name.startswith("present.")}
        if not cached or any(len(shape) != 4 or shape[0] != 2 or shape[2] != 7 for shape in cached.values()):
            raise self.unknown("its cache is not one of keys and values that grow with the sequence")
        return [
            TensorSpec(
                name.replace("present.", "past_key_values."),
                ("batch", shape[1], "past_sequence", shape[3]),
                "float",
                "past_key" if name.endswith("key") else "past_value",
            )
            for name, shape in cached.items()
        ]

    def _image(self) -> tuple[list[TensorSpec], dict[str, int]]:
        """Return an image of the configured size or a video of the configured length.

        The model may accept other sizes, but its graph may not.
        """
        shape: tuple[Axis, ...] = image_shape(self.config, self.preprocessor)
        if isinstance(frames := getattr(self.config, "num_frames", None), int):
            shape = (frames, *shape)
        return [TensorSpec("pixel_values", ("batch", *shape), "float", "pixel_values")], {}

    def _sound(self) -> tuple[list[TensorSpec], dict[str, int]]:
        """Return raw audio, with a mask only if the feature extractor makes one: other models were trained without."""
        if getattr(self.config, "audio_channels", None) is not None:
            axes: tuple[Axis, ...] = ("batch", int(self.config.audio_channels), "samples")
        else:
            axes = ("batch", "samples")
        specs = [TensorSpec("input_values", axes, "float", "signal")]
        if "attention_mask" in self.dry.parameters and self.preprocessor.get("return_attention_mask"):
            specs.append(TensorSpec("attention_mask", ("batch", "samples"), "int64", "attention_mask"))
        return specs, {"samples": _AUDIO_SAMPLES}

    def _features(self) -> tuple[list[TensorSpec], dict[str, int]]:
        audio = getattr(self.config, "audio_config", self.config)
        bins = self.preprocessor.get("feature_size") or getattr(audio, "num_mel_bins", None)
        if not isinstance(bins, int):
            raise self.unknown("neither its config nor preprocessor_config.json says how many mel bins a frame has")
        if (side := getattr(audio, "spec_size", None)) is not None:
            # A spectrogram that is treated as a square, one-channel image.
            return [TensorSpec("input_features", ("batch", 1, side * side // bins, bins), "float", "signal")], {}
        return [TensorSpec("input_features", ("batch", bins, "frames"), "float", "signal")], {"frames": 100}

    def _series(self) -> tuple[list[TensorSpec], dict[str, int]]:
        if getattr(self.config, "lags_sequence", None):
            return self._lagged_series(), {}
        length, channels = (
            getattr(self.config, "context_length", None),
            getattr(self.config, "num_input_channels", None),
        )
        if not isinstance(length, int) or not isinstance(channels, int):
            raise self.unknown("its config does not say context_length and num_input_channels")
        return [TensorSpec("past_values", ("batch", length, channels), "float", "signal")], {}

    def _lagged_series(self) -> list[TensorSpec]:
        """Return a window of a time series with its lags and features; with future values, so that the decoder runs.

        The decoder's output at each step depends only on earlier values: a forecast draws them one by one.
        """
        config = self.config
        variates: tuple[Axis, ...] = () if config.input_size == 1 else (int(config.input_size),)
        features = int(config.num_time_features + config.num_dynamic_real_features)
        specs: dict[str, TensorSpec] = {}
        for when, length in (
            ("past", int(config.context_length + max(config.lags_sequence))),
            ("future", int(config.prediction_length)),
        ):
            values, known = f"{when}_values", f"{when}_time_features"
            specs[values] = TensorSpec(values, ("batch", length, *variates), "float", "signal")
            specs[known] = TensorSpec(known, ("batch", length, features), "float", "signal")
        observed = specs["past_values"].axes
        specs["past_observed_mask"] = TensorSpec("past_observed_mask", observed, "int64", "attention_mask")
        if kinds := int(config.num_static_categorical_features):
            name = "static_categorical_features"
            specs[name] = TensorSpec(name, ("batch", kinds), "int64", "category_ids")
        if numbers := int(config.num_static_real_features):
            name = "static_real_features"
            specs[name] = TensorSpec(name, ("batch", numbers), "float", "signal")
        return [specs[name] for name in self.dry.parameters if name in specs]
