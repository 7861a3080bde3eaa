"""Reference of an encoder-decoder compiled at fixed sizes: what the unpatched model answers, without any padding of ours.

Runs as a child (see `hfexport._internal.workers`). The decoder is asked with the tokens written so far and no more, so that what
the artifact does with the padding behind them shows; and the model writes text by its own `generate`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfexport.backends.neuron.padded import PaddedDecoder, PaddedEncoder, padded_probes
from hfexport.validation.arrays import write_arrays

__all__ = ["run"]

Arrays = Mapping[str, NDArray[Any]]


def run(job: Mapping[str, Any]) -> dict[str, Any]:
    """Answer the probes of both graphs, and generate.

    Args:
        job: `checkpoint` (folder), `model_type`, `sizes` by part, `calls` (arguments of `generate`), `threads`, and
            `folder`, under which `{part}/inputs/{n}` and `{part}/outputs/{n}` are written, and for part `generation` the
            text, its one input, and the tokens of the n-th call.

    Returns:
        `probes`: the names of the probes answered.
    """
    import torch
    import transformers

    from hfexport.modeling.load import load_model

    torch.set_num_threads(int(job["threads"]))
    checkpoint, folder = Path(job["checkpoint"]), Path(job["folder"])
    config = transformers.AutoConfig.from_pretrained(checkpoint, local_files_only=True)
    encoder, decoder = PaddedEncoder(config), PaddedDecoder(config)
    model: Any = load_model(checkpoint, encoder, "fp32")
    names = []
    with torch.inference_mode():
        for number, probe in enumerate(padded_probes(job["sizes"]["encoder"], decoder=False)):
            inputs = probe.inputs(encoder, "fp32")
            states = model.get_encoder()(**{name: torch.from_numpy(array) for name, array in inputs.items()})
            _write(folder / "encoder", number, inputs, {"last_hidden_state": states.last_hidden_state.numpy()})
            names.append(probe.name)
        for number, probe in enumerate(padded_probes(job["sizes"]["decoder"], decoder=True)):
            inputs = probe.inputs(decoder, "fp32")
            _write(folder / "decoder", number, inputs, {"logits": _next_logits(model, inputs)})
            names.append(probe.name)
        _, text = padded_probes(job["sizes"]["encoder"], decoder=False)
        inputs = text.inputs(encoder, "fp32")
        for number, call in enumerate(job["calls"]):
            # One that `generate` makes for T5 has as many layers as the encoder, too few for a deeper decoder.
            cache = transformers.EncoderDecoderCache(transformers.DynamicCache(), transformers.DynamicCache())
            given = {name: torch.from_numpy(array) for name, array in inputs.items()}
            tokens = model.generate(**given, **call, past_key_values=cache)
            _write(folder / "generation", number, inputs, {"tokens": tokens.numpy()})
    return {"probes": names}


def _write(folder: Path, number: int, inputs: Arrays, outputs: Arrays) -> None:
    write_arrays(folder / "inputs" / str(number), inputs)
    write_arrays(folder / "outputs" / str(number), outputs)


def _next_logits(model: Any, inputs: Arrays) -> NDArray[Any]:
    """Row by row, (batch, 1, vocabulary): rows have written different numbers of tokens."""
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    rows = []
    for row, last in enumerate(inputs["index"]):
        given = {name: torch.from_numpy(array[row : row + 1]) for name, array in inputs.items()}
        outputs = model(
            encoder_outputs=BaseModelOutput(last_hidden_state=given["encoder_hidden_states"]),
            attention_mask=given["encoder_attention_mask"],
            decoder_input_ids=given["decoder_input_ids"][:, : int(last) + 1],
            use_cache=False,
        )
        rows.append(outputs.logits[:, -1:].numpy())
    return np.concatenate(rows)
