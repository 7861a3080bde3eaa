"""Encoder-decoders, as one graph or as the graphs that generation runs one after another.

A `Seq2SeqConfig` describes a family of architectures. Each of its graphs has its own inputs and outputs:

- `model`: encoder and decoder in one graph, as `transformers.onnx` wrote it. With past, the graph computes the
  cross-attention cache from the encoder's input if the given cache has length 0, and reuses it otherwise.
- `encoder_model`, `decoder_model` (a prefill, which returns its cache) and `decoder_with_past_model`, with the file
  names, inputs and outputs that Optimum's `ORTModelForSeq2SeqLM` loads.
- `decoder_model_merged`: both decoders as branches of one graph that share their weights, as Optimum merges them and
  Transformers.js loads them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from hfexport.export_config.axes import Axis, names_of
from hfexport.export_config.base import ExportConfig, Layout, Limit, Part, Role, TensorSpec, Tolerance
from hfexport.export_config.decoder import DecoderConfig
from hfexport.export_config.recipe import Recipe

if TYPE_CHECKING:
    from hfexport.export_config.probes.probe import Probe

__all__ = ["STATES", "Seq2SeqConfig", "Seq2SeqGraph", "WholeModel"]

PAST = "past_decoder_sequence"
NEW = "decoder_sequence"
STATES = "encoder_states"
PAST_ENCODER = "past_encoder_sequence"
PRESENT_ENCODER = "present_encoder_sequence"

_CACHE_PARTS: tuple[tuple[str, Role], ...] = (("key", "past_key"), ("value", "past_value"))


class Seq2SeqConfig(ExportConfig):
    """Encoder-decoder that reads text. Its own inputs and outputs are those of the `single` layout's graph."""

    decoder: ClassVar[type[DecoderConfig] | None] = None
    """Export config of the decoder alone, if it has a causal head."""

    masks_decoder: bool = True
    """Whether the one-graph layouts take a `decoder_attention_mask`."""

    def graphs(self, layout: Layout) -> tuple[ExportConfig, ...]:
        if self.task.name.startswith("causal-lm"):
            if self.decoder is None:
                raise ValueError(f"{type(self).__name__} declares {self.task.name}, but no decoder")
            alone = self.decoder(self.config, self.task, trust_remote_code=self.trust_remote_code)
            return (alone.with_more_outputs(self.more_outputs),)
        if self.task.name in ("sequence-classification", "question-answering"):
            return (_Classifier(self),)
        if layout == "single" or not (self.task.with_past or "logits" in self.task.outputs):
            return (WholeModel(self),)
        encoder = _Encoder(self)
        decoder = _Decoder(self, encoder)
        if not self.task.with_past:
            return (encoder, decoder)
        going_on = _DecoderWithPast(self, encoder)
        return (encoder, _MergedDecoder(decoder, going_on)) if layout == "merged" else (encoder, decoder, going_on)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self.graphs("single")[0].inputs

    @property
    def own_outputs(self) -> tuple[TensorSpec, ...]:
        return self.graphs("single")[0].own_outputs

    @property
    def limits(self) -> Mapping[str, Limit]:
        return self.graphs("single")[0].limits

    @property
    def trace_sizes(self) -> Mapping[str, int]:
        return self.graphs("single")[0].trace_sizes

    @property
    def encoder_inputs(self) -> tuple[TensorSpec, ...]:
        """Return the encoder's inputs, by the names of the whole model's inputs."""
        axes: tuple[Axis, ...] = ("batch", self.encoder_axis)
        return (
            TensorSpec("input_ids", axes, "int64", "token_ids"),
            TensorSpec("attention_mask", axes, "int64", "attention_mask"),
        )

    @property
    def encoder_axis(self) -> Axis:
        """Return the length axis of the encoder's input; its states have it too unless `states_axis` differs."""
        return "encoder_sequence"

    @property
    def states_axis(self) -> Axis:
        """Return the length axis of the encoder's states and of the cross-attention cache."""
        return self.encoder_axis

    def states_length(self, length: int) -> int:
        """Return the number of states for an encoder input of `length`."""
        return length

    def encoder_length(self, states: int) -> int:
        """Return the shortest encoder input that yields `states` states."""
        return states

    @property
    def encoder_trace_length(self) -> int:
        """Return the length of the encoder's input in the traced example."""
        return self.encoder_length(9)

    @property
    def encoder_outputs(self) -> tuple[Axis, ...]:
        """Return the axes of the encoder's states; trailing axes may be left out."""
        return ("batch", self.states_axis, self.encoder_size)

    def mask_of_states(self, mask: Any, states: int) -> Any:
        """Return the mask that the encoder returns with its states for the decoder; `None` if it returns none.

        Args:
            mask: (batch, encoder_sequence), the encoder's mask as a tensor or an array.
            states: number of states.

        Returns:
            (batch, states).
        """
        del mask, states
        return None

    @property
    def start_token(self) -> int:
        named = ("decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id")
        found = (getattr(self.config, name, None) for name in named)
        return int(next((token for token in found if token is not None), 0))

    @property
    def decoder_vocabulary_size(self) -> int:
        """Return the number of the decoder's token ids, if it has its own table.

        That of Marian may be smaller than the encoder's.
        """
        return int(getattr(self.config, "decoder_vocab_size", None) or self.vocabulary_size)

    @property
    def encoder_size(self) -> int:
        """Return the hidden size of the encoder's states."""
        return int(self.config.d_model)

    @property
    def decoder_layers(self) -> int:
        return int(self.config.decoder_layers)

    @property
    def decoder_heads(self) -> int:
        return int(self.config.decoder_attention_heads)

    @property
    def head_size(self) -> int:
        return int(self.config.d_model) // self.decoder_heads

    @property
    def max_encoder_positions(self) -> int | None:
        """Return the longest input of the encoder; `None` if positions are relative."""
        return int(self.config.max_position_embeddings)

    @property
    def max_decoder_positions(self) -> int | None:
        """Return the most tokens of the decoder, past and new; `None` if positions are relative."""
        return int(self.config.max_position_embeddings)


class Seq2SeqGraph(ExportConfig):
    """One graph of a family.

    Args:
        family: values that the graphs of one model share.
        prompt: graph that takes the encoder's input, with which generation starts; the graph itself if `None`.
    """

    def __init__(self, family: Seq2SeqConfig, prompt: ExportConfig | None = None) -> None:
        super().__init__(family.config, family.task, trust_remote_code=family.trust_remote_code)
        self.family = family
        self._prompt = prompt
        self.changes_when_called = family.changes_when_called
        self.more_outputs = family.more_outputs

    @property
    @abstractmethod
    def graph(self) -> str: ...

    @property
    def prompt(self) -> ExportConfig:
        return self._prompt or self

    @property
    def recipe(self) -> Recipe:
        return {**self.family.recipe, "graph": self.graph}

    def probes(self) -> list[Probe]:
        from hfexport.export_config.probes.seq2seq import seq2seq_probes

        return seq2seq_probes(self)

    @property
    def start_token(self) -> int:
        return self.family.start_token

    @property
    def model_kwargs(self) -> Mapping[str, Any]:
        return self.family.model_kwargs

    @property
    def vocabulary_size(self) -> int:
        return self.family.vocabulary_size

    def vocabulary_of(self, name: str) -> int:
        is_decoders = self.part == "decoder" or name == "decoder_input_ids"
        return self.family.decoder_vocabulary_size if is_decoders else self.vocabulary_size

    def tolerance(self, dtype: str) -> Tolerance:
        return self.family.tolerance(dtype)

    @property
    def thresholds(self) -> Mapping[str, int]:
        return {axis: size for axis, size in self.family.thresholds.items() if axis in self.free_axes}

    @property
    def limits(self) -> Mapping[str, Limit]:
        last_read, last_written = self.family.max_encoder_positions, self.family.max_decoder_positions
        limits = {
            "encoder_sequence": Limit(self.family.encoder_length(1), last_read),
            STATES: Limit(1, None if last_read is None else self.family.states_length(last_read)),
            NEW: Limit(1, last_written),
            PAST: Limit(0, None if last_written is None else last_written - 1),
            PAST_ENCODER: Limit(0, last_read),
        }
        names = names_of(self.inputs)
        return {axis: limit for axis, limit in limits.items() if axis in names}

    @property
    def trace_sizes(self) -> Mapping[str, int]:
        read = self.family.encoder_trace_length
        states = self.family.states_length(read)
        return {"batch": 2, "encoder_sequence": read, STATES: states, NEW: 3, PAST: 5, PAST_ENCODER: 4}

    def _decoder_outputs(self) -> tuple[TensorSpec, ...]:
        """Return the task's outputs on the decoder's axis."""
        return tuple(
            TensorSpec(name, tuple(NEW if axis == "sequence" else axis for axis in axes), "float", "output")
            for name, axes in self.task.outputs.items()
        )

    def _cache(self, prefix: str, decoder_axis: Axis | None, encoder_axis: Axis | None) -> tuple[TensorSpec, ...]:
        """Return keys and values of self-attention and cross-attention; an axis of `None` leaves that kind out."""
        kinds = [
            (kind, axis) for kind, axis in (("decoder", decoder_axis), ("encoder", encoder_axis)) if axis is not None
        ]
        return tuple(
            TensorSpec(
                f"{prefix}.{layer}.{kind}.{part}",
                ("batch", self.family.decoder_heads, axis, self.family.head_size),
                "float",
                role if prefix == "past_key_values" else "output",
            )
            for layer in range(self.family.decoder_layers)
            for kind, axis in kinds
            for part, role in _CACHE_PARTS
        )


class WholeModel(Seq2SeqGraph):
    """Encoder and decoder in one graph."""

    graph = "model"

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        with_past = self.task.with_past
        specs = [*self.family.encoder_inputs, TensorSpec("decoder_input_ids", ("batch", NEW), "int64", "token_ids")]
        if self.family.masks_decoder:
            axis = f"{PAST} + {NEW}" if with_past else NEW
            specs.append(TensorSpec("decoder_attention_mask", ("batch", axis), "int64", "attention_mask"))
        if with_past:
            specs.extend(self._cache("past_key_values", PAST, PAST_ENCODER))
        return tuple(specs)

    @property
    def own_outputs(self) -> tuple[TensorSpec, ...]:
        cache = self._cache("present", f"{PAST} + {NEW}", self.family.states_axis) if self.task.with_past else ()
        return (*self._decoder_outputs(), *cache)


class _Classifier(Seq2SeqGraph):
    """Encoder and decoder in one graph, for classification: both read the same text."""

    graph = "model"

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        ids, mask = self.family.encoder_inputs
        pools = self.task.name == "sequence-classification"
        return (TensorSpec(ids.name, ids.axes, ids.dtype, "sentence_ids" if pools else ids.role), mask)

    @property
    def own_outputs(self) -> tuple[TensorSpec, ...]:
        axes = {
            name: tuple("encoder_sequence" if axis == "sequence" else axis for axis in axes)
            for name, axes in self.task.outputs.items()
        }
        return tuple(TensorSpec(name, of, "float", "output") for name, of in axes.items())


class _Encoder(Seq2SeqGraph):
    """The encoder alone."""

    graph = "encoder_model"
    part: ClassVar[Part] = "encoder"

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self.family.encoder_inputs

    @property
    def own_outputs(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec("last_hidden_state", self.family.encoder_outputs, "float", "output"),)


class _Decoder(Seq2SeqGraph):
    """The decoder alone, for the first call: its cache is an output if the task has one."""

    graph = "decoder_model"
    part: ClassVar[Part] = "decoder"

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        states: tuple[Axis, ...] = ("batch", self.family.states_axis, self.family.encoder_size)
        return (
            TensorSpec("input_ids", ("batch", NEW), "int64", "token_ids"),
            *self._encoder_mask(),
            TensorSpec("encoder_hidden_states", states, "float", "signal"),
        )

    def _encoder_mask(self) -> tuple[TensorSpec, ...]:
        masks = [spec for spec in self.family.encoder_inputs if spec.role == "attention_mask"]
        return tuple(TensorSpec("encoder_attention_mask", spec.axes, "int64", "attention_mask") for spec in masks)

    @property
    def own_outputs(self) -> tuple[TensorSpec, ...]:
        cache = self._cache("present", NEW, self.family.states_axis) if self.task.with_past else ()
        return (*self._decoder_outputs(), *cache)


class _DecoderWithPast(_Decoder):
    """The decoder alone, for later calls. The cross-attention cache does not change, so it is not an output."""

    graph = "decoder_with_past_model"

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return (
            TensorSpec("input_ids", ("batch", NEW), "int64", "token_ids"),
            *self._encoder_mask(),
            *self._cache("past_key_values", PAST, self.family.states_axis),
        )

    @property
    def own_outputs(self) -> tuple[TensorSpec, ...]:
        return (*self._decoder_outputs(), *self._cache("present", f"{PAST} + {NEW}", None))


class _MergedDecoder(_Decoder):
    """Both decoders as branches of one graph; an input selects the branch.

    It takes the inputs of both branches and reads only those of the selected one. If a cross-attention cache is given,
    its output has no tokens.
    """

    graph = "decoder_model_merged"

    def __init__(self, decoder: _Decoder, going_on: _DecoderWithPast) -> None:
        super().__init__(decoder.family, decoder.prompt)
        self._branches = decoder, going_on

    @property
    def branches(self) -> tuple[ExportConfig, ...]:
        return self._branches

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        cache = self._cache("past_key_values", PAST, PAST_ENCODER)
        return (*super().inputs, *cache, TensorSpec("use_cache_branch", (1,), "bool", "cache_branch"))

    @property
    def own_outputs(self) -> tuple[TensorSpec, ...]:
        return (*self._decoder_outputs(), *self._cache("present", f"{PAST} + {NEW}", PRESENT_ENCODER))
