"""Wrap a model, its encoder or its decoder as a module that takes and returns flat tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from hfexport.export_config import Seq2SeqGraph
from hfexport.modeling.load import FlatModel, filled_cache, named_output
from hfexport.modeling.pooling import SentenceModel

if TYPE_CHECKING:
    from hfexport.export_config import ExportConfig, Seq2SeqConfig

__all__ = ["flat_model"]


def flat_model(model: torch.nn.Module, config: ExportConfig) -> FlatModel:
    """Return the module that the graph of `config` is made from; its `model` is the wrapped part.

    The model of a decoder loses its encoder, which would otherwise be saved with every file.
    """
    names = [spec.name for spec in config.inputs], [spec.name for spec in config.outputs]
    if config.sentence is not None:
        return FlatModel(SentenceModel(model, config.sentence), *names)
    if config.part == "encoder":
        return FlatModel(_encoder_of(model), *names)
    if config.part == "decoder":
        assert isinstance(config, Seq2SeqGraph)
        _remove_encoder(model)
        return FlatDecoder(model, *names, config.family)
    return FlatSeq2Seq(model, *names) if isinstance(config, Seq2SeqGraph) else FlatModel(model, *names)


def _encoder_of(model: Any) -> torch.nn.Module:
    encoder: torch.nn.Module = model.get_encoder()
    return encoder


def _remove_encoder(model: torch.nn.Module) -> None:
    """Replace the encoder by an empty module that keeps the config, which some models read there."""
    encoder = _encoder_of(model)
    for parent in model.modules():
        for name, child in parent.named_children():
            if child is encoder:
                empty: Any = torch.nn.Module()
                empty.config = encoder.config
                setattr(parent, name, empty)
                return


class FlatSeq2Seq(FlatModel):
    """Encoder and decoder in one call.

    The cache has four tensors per layer: `{layer}.{decoder,encoder}.{key,value}`.
    """

    def answer(self, *tensors: torch.Tensor) -> Any:
        given = dict(zip(self.input_names, tensors, strict=True))
        arguments = self._arguments(given)
        return self.model(**arguments, **self.further, return_dict=True)

    def pick(self, outputs: Any, name: str) -> torch.Tensor:
        return _named_output(outputs, name)

    def _arguments(self, given: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            name: tensor for name, tensor in given.items() if not name.startswith("past_key_values.")
        }
        arguments["use_cache"] = any(name.startswith("present.") for name in self.output_names)
        own, cross = _cached(given, "decoder"), _cached(given, "encoder")
        if own:
            cache = EncoderDecoderCache(filled_cache(own), DynamicCache())
            cache.cross_attention_cache.layers.extend(_CompletedLayer(*pair) for pair in _pairs(cross))
            cache.is_updated = dict.fromkeys(range(len(cross) // 2), False)
            arguments["past_key_values"] = cache
        return arguments


class FlatDecoder(FlatModel):
    """The decoder alone, called through the whole model, which also applies the head.

    Args:
        model: encoder-decoder model.
        input_names: see `FlatModel`.
        output_names: see `FlatModel`.
        family: export config that describes the encoder's outputs.
    """

    def __init__(
        self, model: torch.nn.Module, input_names: Sequence[str], output_names: Sequence[str], family: Seq2SeqConfig
    ) -> None:
        super().__init__(model, input_names, output_names)
        self.family = family

    def answer(self, *tensors: torch.Tensor) -> Any:
        given = dict(zip(self.input_names, tensors, strict=True))
        arguments: dict[str, Any] = {"decoder_input_ids": given["input_ids"]}
        if "encoder_attention_mask" in given:
            arguments["attention_mask"] = given["encoder_attention_mask"]
        own, cross = _cached(given, "decoder"), _cached(given, "encoder")
        caches = any(name.startswith("present.") for name in self.output_names)
        if own:
            cache = EncoderDecoderCache(filled_cache(own), filled_cache(cross))
            cache.is_updated = dict.fromkeys(range(len(cross) // 2), True)
            arguments["past_key_values"] = cache
            # Only the shape of these states is read, since the cache holds all values derived from them.
            states = cross[0].new_zeros((cross[0].shape[0], cross[0].shape[2], self.family.encoder_size))
        else:
            states = given["encoder_hidden_states"]
            # A cache that the model creates has as many layers as the encoder, too few for a deeper decoder.
            arguments["past_key_values"] = EncoderDecoderCache(DynamicCache(), DynamicCache()) if caches else None
        read = BaseModelOutput(last_hidden_state=states)
        if "attention_mask" in arguments:
            mask = self.family.mask_of_states(arguments["attention_mask"], states.shape[1])
            if mask is not None:
                read.attention_mask = mask
        return self.model(**arguments, **self.further, encoder_outputs=read, use_cache=caches, return_dict=True)

    def pick(self, outputs: Any, name: str) -> torch.Tensor:
        return _named_output(outputs, name)


class _CompletedLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Layer of a cross-attention cache of any length; missing positions come from the values the model computes.

    So one graph serves the first call, with an empty cache, and all later ones, with a full cache.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held = keys, values
        self.keys, self.values = keys, values
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        del args, kwargs
        keys, values = self.held
        length = keys.shape[2]
        self.keys = torch.cat([keys, key_states[:, :, length:]], dim=2)
        self.values = torch.cat([values, value_states[:, :, length:]], dim=2)
        return self.keys, self.values


def _cached(given: Mapping[str, torch.Tensor], kind: str) -> list[torch.Tensor]:
    """Return key, value, key, value, ... of the past of one kind of attention."""
    return [tensor for name, tensor in given.items() if name.startswith("past_key_values.") and f".{kind}." in name]


def _pairs(tensors: Sequence[torch.Tensor]) -> zip[tuple[torch.Tensor, torch.Tensor]]:
    return zip(tensors[::2], tensors[1::2], strict=True)


def _named_output(outputs: Any, name: str) -> torch.Tensor:
    if not name.startswith("present."):
        return named_output(outputs, name)
    _, layer, kind, part = name.split(".")
    cache = outputs.past_key_values
    cached = (cache.self_attention_cache if kind == "decoder" else cache.cross_attention_cache).layers[int(layer)]
    return cached.keys if part == "key" else cached.values  # type: ignore[no-any-return]
