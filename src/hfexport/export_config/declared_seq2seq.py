"""An encoder-decoder declared by a user's class, as plain data: one graph with its cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from hfexport.export_config.base import ExportConfig, Layout, TensorSpec, Tolerance
from hfexport.export_config.declared import changed_config
from hfexport.export_config.recipe import Recipe, Seq2SeqValues
from hfexport.export_config.seq2seq import Seq2SeqConfig, WholeModel
from hfexport.export_config.tasks import Task

__all__ = ["DeclaredSeq2Seq", "Seq2SeqInterface"]


@dataclass(frozen=True)
class Seq2SeqInterface:
    """Values that a user's class declares for an encoder-decoder, and values read from the model.

    Attributes:
        origin: `path/file.py:Class`.
        inputs: input names in the artifact's order.
        outputs: output names in the artifact's order.
        layers: number of decoder layers.
        heads: number of heads in the decoder.
        head_size: size of a decoder head.
        encoder_positions: longest input of the encoder; `None` if there is no maximum.
        decoder_positions: most tokens of the decoder, past and new; `None` if there is no maximum.
        vocabulary_size: number of token ids.
        atol: absolute tolerance for fp32.
        opset: default ONNX opset.
        config_values: see `Interface`.
    """

    origin: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layers: int
    heads: int
    head_size: int
    encoder_positions: int | None
    decoder_positions: int | None
    vocabulary_size: int
    atol: float
    opset: int
    config_values: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Seq2SeqValues) -> Seq2SeqInterface:
        names: dict[str, Any] = {"inputs": tuple(values["inputs"]), "outputs": tuple(values["outputs"])}
        return cls(**{**values, **names})


class DeclaredSeq2Seq(Seq2SeqConfig):
    """Encoder-decoder that is one graph in every layout, with the inputs and outputs of the user's class."""

    def __init__(
        self, config: Any, task: Task, interface: Seq2SeqInterface, *, trust_remote_code: bool = False
    ) -> None:
        changed = changed_config(config, interface.config_values)
        super().__init__(changed, task, trust_remote_code=trust_remote_code)
        self.interface = interface
        self.default_opset = interface.opset
        self.masks_decoder = "decoder_attention_mask" in interface.inputs

    def graphs(self, layout: Layout) -> tuple[ExportConfig, ...]:
        del layout
        return (_DeclaredWhole(self),)

    @property
    def origin(self) -> str:
        return self.interface.origin

    @property
    def recipe(self) -> Recipe:
        return {**super().recipe, "task": self.task.to_dict(), "seq2seq": cast("Seq2SeqValues", asdict(self.interface))}

    @property
    def encoder_inputs(self) -> tuple[TensorSpec, ...]:
        return tuple(spec for spec in super().encoder_inputs if spec.name in self.interface.inputs)

    @property
    def decoder_layers(self) -> int:
        return self.interface.layers

    @property
    def decoder_heads(self) -> int:
        return self.interface.heads

    @property
    def head_size(self) -> int:
        return self.interface.head_size

    @property
    def max_encoder_positions(self) -> int | None:
        return self.interface.encoder_positions

    @property
    def max_decoder_positions(self) -> int | None:
        return self.interface.decoder_positions

    @property
    def vocabulary_size(self) -> int:
        return self.interface.vocabulary_size

    def tolerance(self, dtype: str) -> Tolerance:
        default = super().tolerance(dtype)
        return Tolerance(self.interface.atol, default.rtol) if dtype == "fp32" else default


class _DeclaredWhole(WholeModel):
    """Encoder and decoder in one graph, with inputs and outputs in the order of the user's class."""

    family: DeclaredSeq2Seq

    def __init__(self, family: DeclaredSeq2Seq) -> None:
        super().__init__(family)
        self.default_opset = family.default_opset

    @property
    def origin(self) -> str:
        return self.family.origin

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return _in_order(super().inputs, self.family.interface.inputs)

    @property
    def own_outputs(self) -> tuple[TensorSpec, ...]:
        return _in_order(super().own_outputs, self.family.interface.outputs)


def _in_order(specs: tuple[TensorSpec, ...], names: tuple[str, ...]) -> tuple[TensorSpec, ...]:
    return tuple(sorted(specs, key=lambda spec: names.index(spec.name) if spec.name in names else len(names)))
