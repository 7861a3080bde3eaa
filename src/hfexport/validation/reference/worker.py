"""Compute reference outputs: run the unpatched eager model on every probe.

Runs as a child process (see `hfexport._internal.workers`) and shares no wrapper with the back ends, so that an error
there cannot cancel out. It also writes the inputs on which every artifact is run.
"""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hfexport._internal.messages import plain, read
from hfexport.checkpoint.json_file import read_bounded
from hfexport.checkpoint.local import transformer_folder
from hfexport.errors import MODEL_FAILURES, UnsupportedError, first_line
from hfexport.export_config import DecoderConfig, ExportConfig, Seq2SeqGraph, Tolerance
from hfexport.export_config.arrays import Arrays
from hfexport.export_config.builtin import restore_config
from hfexport.export_config.probes import Probe, beam_rows
from hfexport.validation.arrays import read_arrays, write_arrays
from hfexport.validation.messages import ReferenceAnswer, ReferenceJob
from hfexport.validation.reference.given import recorded_names, without

if TYPE_CHECKING:
    import torch

__all__ = ["answer_exactly", "answer_inputs", "answer_probes", "prepare", "run"]


def prepare(folder: str) -> None:
    """Import torch, transformers and the module of the model's architecture, before the job is known.

    Args:
        folder: folder of the checkpoint, or of a sentence-transformers model around it.
    """
    import torch  # noqa: F401
    from transformers import CONFIG_MAPPING

    import hfexport.modeling.load
    import hfexport.modeling.wrappers
    import hfexport.validation.weights  # noqa: F401

    config = json.loads(read_bounded(transformer_folder(Path(folder)) / "config.json"))
    config_module = CONFIG_MAPPING[config["model_type"]].__module__
    importlib.import_module(config_module.replace(".configuration_", ".modeling_"))


def run(values: Mapping[str, Any]) -> dict[str, Any]:
    """Run every probe of every graph, one at a time; the graphs of a job share one model.

    Args:
        values: those of a `ReferenceJob`.

    Returns:
        Values of a `ReferenceAnswer`.
    """
    import torch
    import transformers

    from hfexport.modeling.load import load_model
    from hfexport.modeling.untrusted_config import read_model_config
    from hfexport.modeling.wrappers import flat_model
    from hfexport.validation.weights import hash_model, write_hashes

    job = read(values, ReferenceJob)
    torch.set_num_threads(job.threads)
    checkpoint = Path(job.checkpoint)
    recipe = job.graphs[0].recipe
    model_config = read_model_config(checkpoint, trust_remote_code=recipe["trust_remote_code"])
    configs = [restore_config(graph.recipe, model_config) for graph in job.graphs]
    asked = [(config, graph.probes, Path(graph.folder)) for graph, config in zip(job.graphs, configs, strict=True)]
    left_out: dict[str, tuple[str, ...]] = {}
    if not job.answered:
        model = load_model(checkpoint, configs[0], job.dtype)
        for config, probes, folder in asked:
            with recorded_names(model) as given:
                try:
                    answer_probes(model, config, probes, job.dtype, folder)
                except ModelFails as failure:
                    if job.dtype != "fp16":
                        raise UnsupportedError(failure.message, remedy=failure.remedy) from failure
                    wider = load_model(Path(job.exact_checkpoint), config, "fp32")
                    raise _explained(failure, config, wider) from failure
            left_out[config.graph] = tuple(without(given, _compared(config)))
        for config, _, folder in asked:
            # Last, and in the order of the graphs: a decoder's module removes the encoder from the model.
            write_hashes(hash_model(flat_model(model, config).model), folder)
        del model
    if job.exact is not None:
        model = load_model(Path(job.exact_checkpoint), configs[0], job.exact)
        for config, probes, folder in asked:
            answer_exactly(model, config, probes, job.exact, folder)
    return plain(
        ReferenceAnswer(
            probes=tuple(probe.name for _, probes, _ in asked for probe in probes),
            versions={"torch": torch.__version__, "transformers": transformers.__version__},
            left_out=left_out,
        )
    )


def _compared(config: ExportConfig) -> list[str]:
    """Return names of compared outputs; a sentence embedding is computed from the model's only other output."""
    pooled = ("last_hidden_state", "logits") if config.sentence is not None else ()
    return [*pooled, *(spec.name for spec in config.outputs)]


def answer_probes(
    model: torch.nn.Module, config: ExportConfig, probes: Sequence[Probe], dtype: str, folder: Path
) -> None:
    """Run `model` on every probe; write `inputs/{n}` and `outputs/{n}` to `folder` for the n-th.

    Raises:
        ModelFails: the model fails on a probe.
        UnsupportedError: its outputs are not deterministic.
    """
    import torch

    from hfexport.validation.reference.state import ModelState

    state = ModelState(model)
    with torch.inference_mode():
        for number, probe in enumerate(probes):
            state.restore()
            inputs = probe.inputs(config, dtype)
            write_arrays(folder / "inputs" / str(number), inputs)
            asked = copy.deepcopy(model) if config.changes_when_called else model
            try:
                outputs = answer_inputs(asked, config, probe, inputs)
                if number == 0:
                    state.restore()
                    again = copy.deepcopy(model) if config.changes_when_called else model
                    _refuse_chance(outputs, answer_inputs(again, config, probe, inputs), config.tolerance(dtype))
            except MODEL_FAILURES as error:
                raise ModelFails(probe, error) from error
            write_arrays(folder / "outputs" / str(number), outputs)


class ModelFails(UnsupportedError):
    """The model raised an error on a probe."""

    def __init__(self, probe: Probe, error: BaseException) -> None:
        self.probe = probe
        self.error = first_line(error, named=True)
        super().__init__(
            f"the model itself fails at {probe.name}, so there is nothing to compare with: {self.error}",
            remedy="Check that the model runs in transformers with this config.json; an artifact can only be compared"
            " with a model that runs.",
        )


def _explained(failure: ModelFails, config: ExportConfig, wider: torch.nn.Module) -> UnsupportedError:
    """Return the error for a float16 model that fails: only its dtype is at fault if it runs in float32 (`wider`)."""
    import torch

    from hfexport.validation.precision import unfit

    probe = failure.probe
    try:
        with torch.inference_mode():
            answer_inputs(wider, config, probe, probe.inputs(config, "fp32"))
    except MODEL_FAILURES:
        return UnsupportedError(failure.message, remedy=failure.remedy)
    return unfit(f"it fails in float16 at {probe.name}, and runs in float32: {failure.error}")


def answer_exactly(
    model: torch.nn.Module, config: ExportConfig, probes: Sequence[Probe], exact: str, folder: Path
) -> None:
    """Run a model in higher precision on the same inputs; write `exact/{n}` to `folder` for the n-th probe.

    Greedy decoding appends the tokens that the first model chose, so that the same calls are compared.

    Raises:
        UnsupportedError: the model does not run in this precision.
    """
    import torch

    from hfexport.validation.reference.widened import Widened

    floating = {"fp32": np.float32, "fp64": np.float64}[exact]
    with torch.inference_mode(), Widened() if exact == "fp64" else nullcontext():
        for number, probe in enumerate(probes):
            given = read_arrays(folder / "inputs" / str(number))
            inputs = {
                name: array.astype(floating) if array.dtype.kind == "f" else np.array(array)
                for name, array in given.items()
            }
            tokens = read_arrays(folder / "outputs" / str(number))["tokens"] if probe.greedy_steps else None
            asked = copy.deepcopy(model) if config.changes_when_called else model
            try:
                outputs = answer_inputs(asked, config, probe, inputs, tokens)
            except MODEL_FAILURES as error:
                raise UnsupportedError(
                    f"the model does not run in {exact}: {type(error).__name__}: {error}",
                    remedy="The model cannot be used in higher precision.",
                ) from error
            write_arrays(folder / "exact" / str(number), outputs)


def _refuse_chance(outputs: Arrays, again: Arrays, tolerance: Tolerance) -> None:
    """Raise an error if two runs of the model on the same inputs differ."""
    for name, first in outputs.items():
        if not np.allclose(first, again[name], rtol=tolerance.rtol, atol=tolerance.atol, equal_nan=True):
            raise UnsupportedError(
                f"two runs of the model on the same inputs give different values of {name}",
                remedy="The model draws random numbers, so its artifacts cannot be validated.",
            )


def answer_inputs(
    model: torch.nn.Module,
    config: ExportConfig,
    probe: Probe,
    inputs: Arrays,
    forced: NDArray[Any] | None = None,
) -> Arrays:
    """Run one probe; greedy decoding appends `forced` tokens, if given."""
    from hfexport.validation.reference.seq2seq import answer_graph, decode, generate

    if isinstance(config, Seq2SeqGraph):
        if not probe.greedy_steps:
            return _in_order(answer_graph(model, config, inputs), config)
        if forced is None and not probe.reorders:
            return generate(model, config, inputs, probe.greedy_steps)
        return decode(model, config, inputs, probe.greedy_steps, reorders=probe.reorders, forced=forced)
    if probe.greedy_steps:
        return _decode_greedily(model, inputs, probe, forced)
    return _in_order(_answer(model, config, inputs), config)


def _in_order(outputs: Arrays, config: ExportConfig) -> Arrays:
    """Return outputs in the order of `config`, then those it does not name, so that the comparison reports them."""
    names = [spec.name for spec in config.outputs if spec.name in outputs]
    return {name: outputs[name] for name in dict.fromkeys([*names, *outputs])}


def _answer(model: torch.nn.Module, config: ExportConfig, inputs: Arrays) -> Arrays:
    """Call the model once, with a cache if the task has one."""
    import torch
    from transformers import DynamicCache

    from hfexport.modeling.load import further_arguments, named_output

    arguments: dict[str, Any] = {
        name: torch.from_numpy(array) for name, array in inputs.items() if not name.startswith("past_key_values.")
    }
    if config.task.with_past:
        arguments["past_key_values"] = _cache(DynamicCache(), inputs)
        arguments["use_cache"] = True
    elif isinstance(config, DecoderConfig) or "decoder_input_ids" in inputs:
        # A cache that the model makes has as many layers as the encoder, too few for a deeper decoder.
        arguments["use_cache"] = False
    given = model(**arguments, **further_arguments([spec.name for spec in config.outputs]))
    if config.sentence is not None:
        from hfexport.validation.reference.sentence import sentence_embeddings

        splade = config.sentence.splade is not None
        tokens = (given.logits if splade else given.last_hidden_state).numpy()
        pooled = sentence_embeddings(tokens, inputs["attention_mask"], config.sentence)
        return {**({} if splade else {"token_embeddings": tokens}), "sentence_embedding": pooled}
    outputs: Arrays = {}
    for spec in config.outputs:
        if not spec.name.startswith("present."):
            outputs[spec.name] = named_output(given, spec.name).numpy()
    if config.task.with_past:
        for layer, cached in enumerate(given.past_key_values.layers):
            outputs[f"present.{layer}.key"] = cached.keys.numpy()
            outputs[f"present.{layer}.value"] = cached.values.numpy()
    return outputs


def _cache(cache: Any, inputs: Arrays) -> Any:
    """Fill `cache` as the model does; leave it empty for a past of length 0, as in a prefill."""
    import torch

    layer = 0
    while (key := inputs.get(f"past_key_values.{layer}.key")) is not None:
        if key.shape[2] > 0:
            value = inputs[f"past_key_values.{layer}.value"]
            cache.update(torch.from_numpy(key), torch.from_numpy(value), layer)
        layer += 1
    return cache


def _decode_greedily(
    model: torch.nn.Module, prompt: Arrays, probe: Probe, forced: NDArray[Any] | None = None
) -> Arrays:
    """Decode greedily with the model's own cache, which the model extends and reorders itself.

    Returns:
        `tokens` (batch, steps), `logits` (batch, steps, vocabulary) that selected them, and the cache after the last
        call.
    """
    import torch
    from transformers import DynamicCache

    cache = _cache(DynamicCache(), prompt)
    ids, mask = torch.from_numpy(prompt["input_ids"]), torch.from_numpy(prompt["attention_mask"])
    positions = {name: torch.from_numpy(prompt[name]) for name in ("position_ids",) if name in prompt}
    tokens: list[NDArray[Any]] = []
    logits: list[NDArray[Any]] = []
    steps = probe.greedy_steps
    for step in range(steps):
        given = model(input_ids=ids, attention_mask=mask, **positions, past_key_values=cache, use_cache=True)
        cache, last = given.past_key_values, given.logits[:, -1]
        ids = last.argmax(dim=-1, keepdim=True)
        logits.append(last.numpy())
        tokens.append(ids[:, 0].numpy())
        if forced is not None:
            ids = torch.from_numpy(np.array(forced[:, step : step + 1]))
        if probe.reorders and step + 1 == steps // 2:
            rows = torch.tensor(beam_rows(len(ids)))
            cache.reorder_cache(rows)
            ids, mask = ids[rows], mask[rows]
        if step + 1 < steps:
            mask = torch.cat([mask, mask.new_ones((len(mask), 1))], dim=1)
            positions = {name: mask.sum(dim=1, keepdim=True) - 1 for name in positions}
    outputs = {"tokens": np.stack(tokens, axis=1), "logits": np.stack(logits, axis=1)}
    for layer, cached in enumerate(cache.layers):
        outputs[f"present.{layer}.key"] = cached.keys.numpy()
        outputs[f"present.{layer}.value"] = cached.values.numpy()
    return outputs
