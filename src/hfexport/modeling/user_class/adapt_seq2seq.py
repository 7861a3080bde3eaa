"""Convert a user's `OnnxSeq2SeqConfigWithPast` with cache to an export config of one graph."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from hfexport.export_config import DeclaredSeq2Seq, Seq2SeqInterface
from hfexport.export_config.probes import trace_inputs
from hfexport.modeling.inferred.dry_run import DryModel, Refused
from hfexport.modeling.inferred.measure import position_limit, vocabulary_size
from hfexport.modeling.user_class.onnx_config import OnnxSeq2SeqConfigWithPast
from hfexport.modeling.user_class.properties import Properties

__all__ = ["declare_seq2seq"]

_CACHE: Final = re.compile(r"past_key_values\.\d+\.(decoder|encoder)\.(key|value)")
_AXES: Final[Mapping[str, tuple[list[int], ...]]] = {
    "input_ids": ([0, 1],),
    "attention_mask": ([0, 1],),
    # `transformers.onnx` allowed one new token at a time; here any number is allowed.
    "decoder_input_ids": ([0, 1], [0]),
    "decoder_attention_mask": ([0, 1],),
}
"""Inputs besides the cache, and the axes that a class may declare as free."""


def declare_seq2seq(
    own: OnnxSeq2SeqConfigWithPast, origin: str, dry: DryModel, *, trust_remote_code: bool
) -> DeclaredSeq2Seq:
    """Return the export config that `own` describes, with the axis names of hfexport's encoder-decoders.

    Args:
        own: instance of the user's class, with `use_past`.
        origin: name of the class in messages and in the manifest: `path/file.py:Class`.
        dry: model without data.
        trust_remote_code: the model's class is code from the checkpoint.

    Raises:
        InputsError: the class contradicts itself or the model.
    """
    reader = Properties(own, origin)
    inputs, outputs = reader.axes("inputs"), reader.axes("outputs")
    module: Any = dry.module
    layers, heads = reader.read("num_layers"), reader.read("num_attention_heads")
    interface = Seq2SeqInterface(
        origin=origin,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        layers=_of_decoder(layers),
        heads=_of_decoder(heads),
        head_size=int(reader.number("head_size")),
        encoder_positions=position_limit(module.get_encoder(), own._config),
        decoder_positions=position_limit(module.get_decoder(), own._config),
        vocabulary_size=vocabulary_size(module, own._config),
        atol=reader.number("atol_for_validation"),
        opset=int(reader.number("default_onnx_opset")),
        config_values=reader.config_values(),
    )
    config = DeclaredSeq2Seq(own._config, own.full_task, interface, trust_remote_code=trust_remote_code)
    (graph,) = config.graphs("single")
    for name, axes in inputs.items():
        allowed = ([0, 2],) if _CACHE.fullmatch(name) else _AXES.get(name)
        if allowed is None:
            known = ", ".join((*_AXES, "past_key_values.0.decoder.key"))
            raise reader.wrong("inputs", f"{name!r} cannot be with a cache; it goes with {known} and the like")
        if sorted(axes) not in allowed:
            raise reader.wrong("inputs", f"{name!r} names axes {sorted(axes)}; free are {allowed[0]}")
    for field, declared, specs in (("inputs", inputs, graph.inputs), ("outputs", outputs, graph.outputs)):
        names = {spec.name for spec in specs}
        if missing := [spec.name for spec in specs if spec.name not in declared]:
            raise reader.wrong(field, f"lacks {', '.join(missing[:3])}")
        if unknown := [name for name in declared if name not in names]:
            raise reader.wrong(field, f"{unknown[0]!r} is not one of {', '.join(sorted(names)[:4])} and the like")
    try:
        given = dry.run_graph(graph, trace_inputs(graph, "fp32"))
    except Refused as error:
        raise reader.wrong("inputs", f"the model does not take them: {error}") from error
    for spec in graph.outputs:
        if len(given[spec.name].shape) < len(spec.axes):
            raise reader.wrong("outputs", f"{spec.name!r} has {len(given[spec.name].shape)} axes in the model")
    return config


def _of_decoder(value: Any) -> int:
    """Return the decoder's number from a pair (encoder, decoder) as in the base class, or from one number for both."""
    return int(value[1] if isinstance(value, tuple) else value)
