"""Greedy decoding with an artifact: build the inputs of each call from the outputs of the last one.

Numpy only. Masks and positions are counted as in `transformers.generate`; tests compare the reference with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfexport.export_config.arrays import Arrays
from hfexport.export_config.probes import beam_rows
from hfexport.validation.sessions import Refusal, Session

__all__ = ["decode", "next_inputs"]


def decode(
    sessions: Mapping[str, Session],
    prompt: Arrays,
    reference_tokens: NDArray[Any],
    start_token: int,
    *,
    reorders: bool = False,
) -> Arrays:
    """Decode greedily with the artifact's own cache.

    Each step appends the model's token. The artifact must have chosen the same one unless two are tied; at a tie, this
    keeps the steps comparable.

    Args:
        sessions: sessions by graph: `model`, or `encoder_model`, `decoder_model` and `decoder_with_past_model`.
        prompt: inputs of the first call.
        reference_tokens: (batch, steps), tokens that the model chose.
        start_token: first token of the decoder, if it is a graph of its own.
        reorders: half-way, reorder the rows of the batch, including the cache.

    Returns:
        The same outputs as the reference's: `tokens`, `logits`, and the cache after the last call.
    """
    session, inputs = _first_call(sessions, prompt, start_token)
    going_on = sessions.get("decoder_with_past_model", session)
    cache: Arrays = {}
    tokens: list[NDArray[Any]] = []
    logits: list[NDArray[Any]] = []
    steps = reference_tokens.shape[1]
    for step in range(steps):
        if step:
            chosen = reference_tokens[:, step - 1]
            if reorders and step == steps // 2:
                rows = beam_rows(len(chosen))
                chosen, inputs, cache = chosen[rows], _take(inputs, rows), _take(cache, rows)
            session, inputs = going_on, next_inputs(inputs, cache, chosen)
        outputs = session.ask(inputs)
        if outputs["logits"].ndim != 3 or not outputs["logits"].size:
            raise Refusal(f"greedy step {step}: logits have shape {outputs['logits'].shape}")
        logits.append(outputs["logits"][:, -1])
        tokens.append(logits[-1].argmax(axis=-1))
        cache |= {name: array for name, array in outputs.items() if name.startswith("present.")}
    return {"tokens": np.stack(tokens, axis=1), "logits": np.stack(logits, axis=1), **cache}


def _take(arrays: Mapping[str, NDArray[Any]], rows: list[int]) -> Arrays:
    return {name: array[rows] for name, array in arrays.items()}


def _first_call(sessions: Mapping[str, Session], prompt: Arrays, start_token: int) -> tuple[Session, Arrays]:
    """Return the graph that is called first for logits, and its inputs; an encoder is run before."""
    encoder = sessions.get("encoder_model")
    if encoder is None:
        return sessions["model"], prompt
    states = encoder.ask(prompt)["last_hidden_state"]
    inputs = {"input_ids": np.full((len(states), 1), start_token, dtype=np.int64)}
    if "attention_mask" in prompt:
        inputs["encoder_attention_mask"] = prompt["attention_mask"]
    return sessions["decoder_model"], inputs | {"encoder_hidden_states": states}


def next_inputs(
    inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]], tokens: NDArray[np.int64]
) -> Arrays:
    """Return the inputs that append `tokens`, with the cache of earlier calls.

    Args:
        inputs: inputs of the last call, by name.
        outputs: outputs of the last call, by name; its `present.*` become `past_key_values.*`. A cross-attention cache
            that only an earlier call returned must be included.
        tokens: (batch,), one token per row.

    Returns:
        Inputs by name: those of the last call in order, without the encoder's states, then the cache.
    """
    batch = len(tokens)
    ids = "decoder_input_ids" if "decoder_input_ids" in inputs else "input_ids"
    mask = "decoder_attention_mask" if ids == "decoder_input_ids" else "attention_mask"
    grown = np.concatenate([inputs[mask], np.ones((batch, 1), dtype=np.int64)], axis=1) if mask in inputs else None
    made: Arrays = {}
    for name, array in inputs.items():
        if name == ids:
            made[name] = np.asarray(tokens, dtype=np.int64).reshape(batch, 1)
        elif name == mask and grown is not None:
            made[name] = grown
        elif name == "position_ids" and grown is not None:
            made[name] = grown.sum(axis=1, keepdims=True, dtype=np.int64) - 1
        elif name == "encoder_attention_mask" or (ids == "decoder_input_ids" and not name.startswith("past_")):
            made[name] = array
        elif name != "encoder_hidden_states" and not name.startswith("past_key_values."):
            raise ValueError(f"input {name}: no rule for the next step of a greedy decoding")
    cache = {name: array for name, array in outputs.items() if name.startswith("present.")}
    return made | {"past_key_values." + name.removeprefix("present."): array for name, array in cache.items()}
