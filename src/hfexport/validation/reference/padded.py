"""Reference of an encoder-decoder compiled at fixed sizes: outputs of the unpatched model without padding.

Runs as a child process (see `hfexport._internal.workers`). The decoder gets only the tokens written so far, so that
errors in the artifact's handling of padding become visible. The model generates text with its own `generate`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfexport._internal.messages import plain, read
from hfexport.backends.neuron.padded import PaddedDecoder, PaddedEncoder, padded_probes
from hfexport.export_config.arrays import Arrays
from hfexport.validation.arrays import write_arrays
from hfexport.validation.messages import PaddedReferenceJob, ReferenceAnswer

__all__ = ["run"]


def run(job: Mapping[str, Any]) -> dict[str, Any]:
    """Run the probes of both graphs, and generate. Takes a `PaddedReferenceJob` and returns a `ReferenceAnswer`."""
    asked = read(job, PaddedReferenceJob)
    import torch
    import transformers

    from hfexport.modeling.load import load_model

    torch.set_num_threads(asked.threads)
    checkpoint, folder = Path(asked.checkpoint), Path(asked.folder)
    config = transformers.AutoConfig.from_pretrained(checkpoint, local_files_only=True)
    encoder, decoder = PaddedEncoder(config), PaddedDecoder(config)
    model: Any = load_model(checkpoint, encoder, "fp32")
    names = []
    with torch.inference_mode():
        for number, probe in enumerate(padded_probes(asked.sizes["encoder"], decoder=False)):
            inputs = probe.inputs(encoder, "fp32")
            states = model.get_encoder()(**{name: torch.from_numpy(array) for name, array in inputs.items()})
            _write(folder / "encoder", number, inputs, {"last_hidden_state": states.last_hidden_state.numpy()})
            names.append(probe.name)
        for number, probe in enumerate(padded_probes(asked.sizes["decoder"], decoder=True)):
            inputs = probe.inputs(decoder, "fp32")
            _write(folder / "decoder", number, inputs, {"logits": _next_logits(model, inputs)})
            names.append(probe.name)
        _, text = padded_probes(asked.sizes["encoder"], decoder=False)
        inputs = text.inputs(encoder, "fp32")
        for number, call in enumerate(asked.calls):
            # The cache that `generate` makes for T5 has as many layers as the encoder, too few for a deeper decoder.
            cache = transformers.EncoderDecoderCache(transformers.DynamicCache(), transformers.DynamicCache())
            given = {name: torch.from_numpy(array) for name, array in inputs.items()}
            tokens = model.generate(**given, **plain(call), past_key_values=cache)
            _write(folder / "generation", number, inputs, {"tokens": tokens.numpy()})
    return plain(ReferenceAnswer(probes=tuple(names)))


def _write(folder: Path, number: int, inputs: Arrays, outputs: Arrays) -> None:
    write_arrays(folder / "inputs" / str(number), inputs)
    write_arrays(folder / "outputs" / str(number), outputs)


def _next_logits(model: Any, inputs: Arrays) -> NDArray[Any]:
    """Return (batch, 1, vocabulary) row by row, since rows have different numbers of tokens."""
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
