"""Reference outputs of an encoder-decoder, for each graph and for generation. See `reference`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hfexport.export_config.arrays import Arrays
from hfexport.export_config.probes import beam_rows

if TYPE_CHECKING:
    import torch

    from hfexport.export_config import Seq2SeqGraph

__all__ = ["answer_graph", "decode", "generate"]


def answer_graph(model: Any, config: Seq2SeqGraph, inputs: Arrays) -> Arrays:
    """Return the outputs of the part of the model that `config` describes."""
    import torch

    from hfexport.modeling.load import further_arguments, named_output

    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    plain: dict[str, Any] = {
        name: tensor for name, tensor in tensors.items() if not name.startswith("past_key_values.")
    }
    further = further_arguments([spec.name for spec in config.outputs])
    if config.part == "encoder":
        plain |= further
        given = model.get_encoder()(**plain)
    elif config.part == "decoder":
        given = _ask_decoder(model, config, plain, tensors, further)
    else:
        plain |= further
        if config.task.with_past:
            plain |= {"past_key_values": _filled_cache(tensors), "use_cache": True}
        given = model(**plain)
    outputs: Arrays = {}
    for spec in config.outputs:
        if not spec.name.startswith("present."):
            outputs[spec.name] = named_output(given, spec.name).numpy()
    if config.task.with_past and config.part != "encoder":
        goes_on = any(spec.role == "past_key" for spec in config.inputs)
        outputs |= _cache_arrays(given.past_key_values, cross=config.part == "model" or not goes_on)
    return outputs


def _ask_decoder(
    model: Any, config: Seq2SeqGraph, plain: Mapping[str, torch.Tensor], tensors: Any, further: Mapping[str, bool]
) -> Any:
    """Run the decoder through the whole model, with the encoder's states as input."""
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    arguments: dict[str, Any] = {"decoder_input_ids": plain["input_ids"], "use_cache": config.task.with_past}
    if config.task.with_past:
        arguments["past_key_values"] = _filled_cache(tensors)
    if "encoder_attention_mask" in plain:
        arguments["attention_mask"] = plain["encoder_attention_mask"]
    states = plain.get("encoder_hidden_states")
    if states is None:
        keys = tensors["past_key_values.0.encoder.key"]
        # NaN: if the model used these states despite its full cache, its outputs would be NaN.
        states = torch.full((keys.shape[0], keys.shape[2], config.family.encoder_size), torch.nan, dtype=keys.dtype)
    read = BaseModelOutput(last_hidden_state=states)
    mask = arguments.get("attention_mask")
    if mask is not None and config.family.mask_of_states(mask, states.shape[1]) is not None:
        # Only the encoder can shorten the mask; its states for silence are discarded.
        read = model.get_encoder()(torch.zeros(mask.shape, dtype=states.dtype), attention_mask=mask)
        read.last_hidden_state = states
    return model(encoder_outputs=read, **arguments, **further)


def _filled_cache(tensors: Mapping[str, torch.Tensor]) -> Any:
    """Return a filled cache; a part of length 0 is left empty, as in a prefill.

    A cache that the model makes has as many layers as the encoder, too few for a deeper decoder.
    """
    from transformers import DynamicCache, EncoderDecoderCache

    halves = {"decoder": DynamicCache(), "encoder": DynamicCache()}
    for kind, cache in halves.items():
        layer = 0
        while (key := tensors.get(f"past_key_values.{layer}.{kind}.key")) is not None:
            if key.shape[2] > 0:
                cache.update(key, tensors[f"past_key_values.{layer}.{kind}.value"], layer)
            layer += 1
    return EncoderDecoderCache(halves["decoder"], halves["encoder"])


def _cache_arrays(cache: Any, *, cross: bool) -> Arrays:
    outputs: Arrays = {}
    for layer, own in enumerate(cache.self_attention_cache.layers):
        outputs[f"present.{layer}.decoder.key"] = own.keys.numpy()
        outputs[f"present.{layer}.decoder.value"] = own.values.numpy()
        if cross:
            read = cache.cross_attention_cache.layers[layer]
            outputs[f"present.{layer}.encoder.key"] = read.keys.numpy()
            outputs[f"present.{layer}.encoder.value"] = read.values.numpy()
    return outputs


def generate(model: Any, config: Seq2SeqGraph, prompt: Arrays, steps: int) -> Arrays:
    """Generate greedy tokens with `generate` of transformers, with all options that end or restrict it disabled.

    Args:
        model: encoder-decoder with a language model head.
        config: graph that takes a cache.
        prompt: inputs of the encoder; for a single graph, also those of the decoder.
        steps: number of tokens to generate.

    Returns:
        `tokens` (batch, steps), `logits` (batch, steps, vocabulary) that selected them, and the cache after the last
        call.
    """
    import torch
    from transformers import GenerationConfig, GenerationMixin

    asked: dict[str, Any] = {
        name: torch.from_numpy(array) for name, array in prompt.items() if not name.startswith("past_key_values.")
    }
    start = torch.full((len(next(iter(asked.values()))), 1), config.start_token)
    plan = GenerationConfig(
        do_sample=False,
        max_new_tokens=steps,
        eos_token_id=None,
        decoder_start_token_id=config.start_token,
        pad_token_id=model.config.pad_token_id,
        output_logits=True,
        return_dict_in_generate=True,
    )
    asked["decoder_input_ids"] = start
    # The model's own generation config would set options that the plan leaves open, such as an end token.
    model.generation_config = plan
    # Called on the base class: Whisper's own method detects languages and cuts long audio before it generates.
    given: Any = GenerationMixin.generate(model, **asked, past_key_values=_filled_cache({}), generation_config=plan)
    # It widens logits; cast back, they have the model's values.
    logits = torch.stack(list(given.logits), dim=1).to(model.dtype)
    outputs = {"tokens": given.sequences[:, start.shape[1] :].numpy(), "logits": logits.numpy()}
    return outputs | _cache_arrays(given.past_key_values, cross=True)


def decode(
    model: Any,
    config: Seq2SeqGraph,
    prompt: Arrays,
    steps: int,
    *,
    reorders: bool,
    forced: NDArray[Any] | None = None,
) -> Arrays:
    """Decode greedily, call by call.

    Args:
        model: encoder-decoder with a language model head.
        config: graph that takes a cache.
        prompt: see `generate`.
        steps: number of tokens to generate.
        reorders: half-way, reorder rows and cache with the cache's own method for beam search.
        forced: (batch, steps), tokens to append instead of those that the model chooses.

    Returns:
        See `generate`; `tokens` and `logits` of each step are in the row order of that step.
    """
    import torch

    names = [spec.name for spec in config.family.encoder_inputs]
    read = {name: torch.from_numpy(prompt[name]) for name in names}
    states = model.get_encoder()(**read)
    masks = {"attention_mask": read["attention_mask"]} if "attention_mask" in read else {}
    ids = torch.full((len(states.last_hidden_state), 1), config.start_token)
    cache = _filled_cache({})
    tokens: list[NDArray[Any]] = []
    logits: list[NDArray[Any]] = []
    for step in range(steps):
        given = model(
            encoder_outputs=states,
            decoder_input_ids=ids,
            past_key_values=cache,
            use_cache=True,
            **masks,
        )
        ids = given.logits[:, -1].argmax(dim=-1, keepdim=True)
        logits.append(given.logits[:, -1].numpy())
        tokens.append(ids[:, 0].numpy())
        if forced is not None:
            ids = torch.from_numpy(np.array(forced[:, step : step + 1]))
        if reorders and step + 1 == steps // 2:
            rows = torch.tensor(beam_rows(len(ids)))
            cache.reorder_cache(rows)
            ids, masks = ids[rows], {name: mask[rows] for name, mask in masks.items()}
            for name, value in states.items():
                if isinstance(value, torch.Tensor):  # attentions are tuples, which the decoder does not read
                    states[name] = value[rows]
    return {"tokens": np.stack(tokens, axis=1), "logits": np.stack(logits, axis=1), **_cache_arrays(cache, cross=True)}
