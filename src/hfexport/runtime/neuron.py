"""Load and run Neuron artifacts: pad inputs to their fixed sizes, and generate text with `generate`.

Every Neuron artifact contains a copy of this file and of `shapes` as the package `hfexport_neuron`, since the SDK's
Python is too old for hfexport. Needs Python 3.8 or newer, numpy, torch and the SDK; `NeuronGenerator` also transformers 4.

    import sys
    sys.path.insert(0, "hfexport-out/neuron")
    from hfexport_neuron import load

    model = load("hfexport-out/neuron")
    outputs = model(**tokenizer("Hello", return_tensors="np"))      # an encoder, a classifier, an image model
    tokens = model.generate(**tokenizer("Hello", return_tensors="pt"), num_beams=4)     # an encoder-decoder
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any, Mapping, NamedTuple

from .shapes import input_sizes, pad_to_fixed, slice_outputs

__all__ = ["NeuronModel", "load", "load_generator"]

DESCRIPTION_FILE = "hfexport.json"
"""Name of the extra file in an artifact that describes its inputs and outputs."""

CONFIG_FILE = "config.json"
MODULES = {"neuron-cc": "torch_neuron", "neuronx-cc": "torch_neuronx"}
"""Module to import before loading an artifact, by compiler."""


class Tensor(NamedTuple):
    """One input or output: its name, its axes as names or sizes, and its dtype."""

    name: str
    axes: tuple[Any, ...]
    dtype: str


class NeuronModel:
    """A compiled graph that is called by input names.

    Args:
        module: result of `torch.jit.load`.
        description: content of the artifact's extra file.
    """

    def __init__(self, module: Any, description: Mapping[str, Any]) -> None:
        self.module = module
        self.inputs = _tensors(description["inputs"])
        self.outputs = _tensors(description["outputs"])
        self.fixed_sizes = dict(description["fixed_sizes"])
        self.pad_values = {entry["name"]: entry.get("pad_value") for entry in description["inputs"]}

    def __call__(self, **inputs: Any) -> dict[str, Any]:
        """Run the graph. Inputs are padded to its fixed sizes, and the outputs are cut back.

        Args:
            inputs: arrays or tensors by name.

        Returns:
            Output tensors by name.

        Raises:
            ValueError: an input is missing, unknown, of a wrong shape, or larger than the graph's size.
        """
        import numpy as np
        import torch

        arrays = {spec.name: np.asarray(inputs[spec.name], spec.dtype) for spec in self.inputs if spec.name in inputs}
        arrays.update({name: np.asarray(value) for name, value in inputs.items() if name not in arrays})
        sizes = input_sizes(arrays, self.inputs)
        padded = pad_to_fixed(arrays, self.inputs, self.fixed_sizes, self.pad_values)
        with torch.no_grad():
            given = self.module(*(torch.from_numpy(padded[spec.name]) for spec in self.inputs))
        named = dict(zip((spec.name for spec in self.outputs), given))
        return slice_outputs(named, self.outputs, self.fixed_sizes, sizes)


def _tensors(entries: Any) -> tuple[Tensor, ...]:
    return tuple(Tensor(entry["name"], tuple(entry["axes"]), entry["dtype"]) for entry in entries)


def load(folder: Any) -> Any:
    """Load the artifact in `folder`, on a machine with a Neuron device.

    Returns:
        A `NeuronModel`; for an encoder-decoder, a transformers model that has `generate`.

    Raises:
        FileNotFoundError: the folder has no artifact of hfexport.
    """
    folder = Path(folder)
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    import_module(MODULES[config["neuron"]["compiler_type"]])
    if (folder / "decoder").is_dir():
        return load_generator(folder, folder / "encoder" / "model.neuron", folder / "decoder" / "model.neuron")
    return load_graph(folder / "model.neuron")


def load_graph(path: Any) -> NeuronModel:
    """Load one compiled graph after the SDK was imported, or an uncompiled trace with torch alone."""
    import torch

    if not Path(path).is_file():
        raise FileNotFoundError("{}: no such file".format(path))
    extra = {DESCRIPTION_FILE: ""}
    module = torch.jit.load(str(path), _extra_files=extra)
    return NeuronModel(module, json.loads(extra[DESCRIPTION_FILE]))


def load_generator(folder: Any, encoder: Any, decoder: Any) -> Any:
    """Load an encoder-decoder for text generation: the encoder runs once, the padded decoder once for every token.

    Args:
        folder: folder with config.json, and with generation_config.json if the checkpoint has one.
        encoder: path of the encoder's graph.
        decoder: path of the decoder's graph.

    Returns:
        A transformers model. Its `generate` takes the usual arguments, up to the decoder's length. Batches and beams
        of any number run in chunks of the compiled batch size.
    """
    from transformers import AutoConfig, GenerationConfig

    config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
    model = _generator_class()(config, load_graph(encoder), load_graph(decoder))
    if (Path(folder) / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(str(folder), local_files_only=True)
    generation = model.generation_config
    generation.use_cache = False
    generation.max_new_tokens = None
    generation.max_length = min(generation.max_length or model.decoder_length, model.decoder_length)
    return model


def _generator_class() -> Any:
    """Define the generator class here, so that this module can be imported without transformers."""
    import torch
    from transformers import GenerationMixin, PreTrainedModel
    from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

    class _Encoder(torch.nn.Module):
        """The encoder module that `generate` calls."""

        main_input_name = "input_ids"

        def __init__(self, graph: NeuronModel) -> None:
            super().__init__()
            self.graph = graph

        def forward(self, input_ids: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
            del kwargs
            mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            rows = _in_parts(self.graph, {"input_ids": input_ids, "attention_mask": mask})
            return BaseModelOutput(last_hidden_state=rows["last_hidden_state"])

    class NeuronGenerator(PreTrainedModel, GenerationMixin):
        """An encoder graph and a decoder graph of fixed lengths, with the interface that `generate` needs."""

        main_input_name = "input_ids"

        def __init__(self, config: Any, encoder: NeuronModel, decoder: NeuronModel) -> None:
            config._attn_implementation = "eager"
            super().__init__(config)
            self.encoder = _Encoder(encoder)
            self.graph = decoder
            self.decoder_length = int(decoder.fixed_sizes["decoder_sequence"])

        @property
        def device(self) -> Any:
            return torch.device("cpu")

        def get_encoder(self) -> Any:  # type: ignore[override]
            return self.encoder

        def generate(self, *args: Any, **kwargs: Any) -> Any:
            """Generate as transformers does; raise an error if the text could exceed the decoder's length."""
            longest = kwargs.get("max_length") or (kwargs.get("max_new_tokens") or 0) + 1
            if longest > self.decoder_length:
                raise ValueError(
                    "at most {} tokens can be generated: the decoder was compiled for that many".format(
                        self.decoder_length
                    )
                )
            kwargs.setdefault("synced_gpus", False)  # the default is detected with an import that torch 1.13 lacks
            return super().generate(*args, **kwargs)  # type: ignore[misc]

        def prepare_inputs_for_generation(  # type: ignore[override]
            self, input_ids: Any, attention_mask: Any = None, encoder_outputs: Any = None, **kwargs: Any
        ) -> dict[str, Any]:
            del kwargs
            return {
                "decoder_input_ids": input_ids,
                "attention_mask": attention_mask,
                "encoder_outputs": encoder_outputs,
            }

        def forward(
            self, decoder_input_ids: Any, attention_mask: Any = None, encoder_outputs: Any = None, **kwargs: Any
        ) -> Any:
            del kwargs
            states = encoder_outputs[0]
            mask = states.new_ones(states.shape[:2]).long() if attention_mask is None else attention_mask
            rows, length = decoder_input_ids.shape
            padded = torch.nn.functional.pad(decoder_input_ids, (0, self.decoder_length - length))
            inputs = {
                "decoder_input_ids": padded,
                "encoder_attention_mask": mask,
                "encoder_hidden_states": states,
                "index": torch.full((rows,), length - 1),
            }
            return Seq2SeqLMOutput(logits=_in_parts(self.graph, inputs)["logits"])

    return NeuronGenerator


def _in_parts(graph: NeuronModel, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Run any number of rows, in chunks of the batch size that the graph was compiled for."""
    import torch

    rows = len(next(iter(inputs.values())))
    size = graph.fixed_sizes.get("batch", rows)
    parts = [
        graph(**{name: tensor[start : start + size] for name, tensor in inputs.items()})
        for start in range(0, rows, size)
    ]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
