"""Load TorchScript and fixed-shape ONNX artifacts, and call them by the input names in their description."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict

from hfexport.export_config import Axis, ExportConfig, Role, TensorSpec
from hfexport.runtime.shapes import input_sizes, pad_to_fixed, slice_outputs

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

__all__ = [
    "DESCRIPTION_FILE",
    "Description",
    "DescriptionValues",
    "OnnxModel",
    "TorchScriptModel",
    "load_onnx",
    "load_torchscript",
]

DESCRIPTION_FILE: Final = "hfexport.json"
"""Name of the extra file in a TorchScript artifact, and of the metadata in a fixed-shape ONNX file, with its `Description`."""


class TensorEntry(TypedDict):
    """Values of an output in a description; `dtype` is numpy's name."""

    name: str
    dtype: str
    axes: list[Axis]
    role: Role


class InputEntry(TensorEntry):
    """Values of an input in a description."""

    pad_value: int | None


class DescriptionValues(TypedDict):
    """JSON values of a `Description`."""

    inputs: list[InputEntry]
    outputs: list[TensorEntry]
    fixed_sizes: dict[str, int]
    metadata: dict[str, str]


@dataclass(frozen=True)
class Description:
    """An artifact's inputs, outputs and fixed sizes, as stored in its extra file.

    Attributes:
        inputs: inputs in the artifact's order; those of dtype `float` have the type `float_dtype`.
        outputs: outputs in the artifact's order.
        float_dtype: `float32` or `float16`.
        fixed_sizes: sizes of the axes that are fixed; empty for an artifact with dynamic shapes.
        pad_values: padding value by input name; `None` where the model has no padding token.
        metadata: producer, version, source and task.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    float_dtype: str = "float32"
    fixed_sizes: Mapping[str, int] = field(default_factory=dict)
    pad_values: Mapping[str, int | None] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, config: ExportConfig, dtype: str, *, fixed_sizes: Mapping[str, int], metadata: Mapping[str, str]
    ) -> Description:
        """Create the description of an artifact of `config` in `dtype` (`fp32` or `fp16`)."""
        return cls(
            inputs=config.inputs,
            outputs=config.outputs,
            float_dtype={"fp32": "float32", "fp16": "float16"}[dtype],
            fixed_sizes=dict(fixed_sizes),
            pad_values=_pad_values(config),
            metadata=dict(metadata),
        )

    def to_dict(self) -> DescriptionValues:
        """Convert to JSON values that `from_dict` reads."""
        return {
            "inputs": [{**self._tensor(spec), "pad_value": self.pad_values.get(spec.name, 0)} for spec in self.inputs],
            "outputs": [self._tensor(spec) for spec in self.outputs],
            "fixed_sizes": dict(self.fixed_sizes),
            "metadata": dict(self.metadata),
        }

    def _tensor(self, spec: TensorSpec) -> TensorEntry:
        dtype = self.float_dtype if spec.dtype == "float" else spec.dtype
        return {"name": spec.name, "dtype": dtype, "axes": list(spec.axes), "role": spec.role}

    @classmethod
    def from_dict(cls, values: DescriptionValues) -> Description:
        """Create from the result of `to_dict`."""
        floats = {entry["dtype"] for entry in (*values["inputs"], *values["outputs"])} - {"int64"}
        return cls(
            inputs=tuple(_spec(entry) for entry in values["inputs"]),
            outputs=tuple(_spec(entry) for entry in values["outputs"]),
            float_dtype=floats.pop() if floats else "float32",
            fixed_sizes=values["fixed_sizes"],
            pad_values={entry["name"]: entry["pad_value"] for entry in values["inputs"]},
            metadata=values["metadata"],
        )


def _spec(entry: TensorEntry) -> TensorSpec:
    dtype: Literal["int64", "float"] = "int64" if entry["dtype"] == "int64" else "float"
    return TensorSpec(entry["name"], tuple(entry["axes"]), dtype, entry["role"])


def _pad_values(config: ExportConfig) -> dict[str, int | None]:
    """Return padding values by input name. Where only the mask marks padding, a missing padding id is replaced by 0."""
    pad = getattr(config.text_config, "pad_token_id", None)
    if pad is None and config.task.name != "sequence-classification":
        pad = 0
    return {spec.name: pad if spec.role == "token_ids" else 0 for spec in config.inputs}


class TorchScriptModel:
    """A TorchScript artifact that is called by input names.

    Args:
        module: result of `torch.jit.load`.
        description: content of the artifact's extra file.
    """

    def __init__(self, module: torch.jit.ScriptModule, description: Description) -> None:
        self.module = module
        self.description = description
        self.input_names = tuple(spec.name for spec in description.inputs)
        self.output_names = tuple(spec.name for spec in description.outputs)

    def __call__(self, **inputs: torch.Tensor | NDArray[Any]) -> dict[str, torch.Tensor]:
        """Run the model. Inputs of a fixed-shape artifact are padded, and its outputs are cut back.

        Args:
            inputs: tensors or arrays, one for each of `input_names`, with the artifact's dtypes.

        Returns:
            Output tensors by name.

        Raises:
            ValueError: an input is missing, unknown, of a wrong shape, or larger than the artifact's fixed size.
            TypeError: an input has another dtype than the artifact takes.
        """
        import torch

        tensors = {name: torch.as_tensor(value) for name, value in inputs.items()}
        sizes = input_sizes(tensors, self.description.inputs)
        self._check_dtypes(tensors)
        fixed = self.description.fixed_sizes
        with torch.inference_mode():
            if not fixed:
                return dict(
                    zip(self.output_names, self.module(*(tensors[name] for name in self.input_names)), strict=True)
                )
            device = next(iter(tensors.values())).device
            arrays = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
            padded = pad_to_fixed(arrays, self.description.inputs, fixed, self.description.pad_values)
            given = self.module(*(torch.from_numpy(array).to(device) for array in padded.values()))
            named = dict(zip(self.output_names, given, strict=True))
            return slice_outputs(named, self.description.outputs, fixed, sizes)

    def _check_dtypes(self, tensors: Mapping[str, torch.Tensor]) -> None:
        for spec in self.description.inputs:
            wanted = self.description.float_dtype if spec.dtype == "float" else spec.dtype
            found = str(tensors[spec.name].dtype).removeprefix("torch.")
            if found != wanted:
                raise TypeError(f"{spec.name} is {found}, but this artifact takes {wanted}")


def load_torchscript(path: Path | str, device: str = "cpu") -> TorchScriptModel:
    """Load a TorchScript artifact. Needs torch, but not the model's own code.

    Args:
        path: path of `model.pt`.
        device: device for the weights, as `torch.device` takes it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has no description, so hfexport did not write it.
    """
    import torch

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    extra = {DESCRIPTION_FILE: ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit as a whole is deprecated
        module = torch.jit.load(str(path), map_location=device, _extra_files=extra)
    if not extra[DESCRIPTION_FILE]:
        raise ValueError(
            f"{path}: no {DESCRIPTION_FILE} inside, so hfexport did not write this file; use torch.jit.load"
        )
    return TorchScriptModel(module, Description.from_dict(json.loads(extra[DESCRIPTION_FILE])))


class OnnxModel:
    """An ONNX file with fixed sizes that is called by input names.

    Args:
        session: `onnxruntime.InferenceSession` of the file.
        description: description in the file's metadata.
    """

    def __init__(self, session: Any, description: Description) -> None:
        self.session = session
        self.description = description
        self.input_names = tuple(spec.name for spec in description.inputs)
        self.output_names = tuple(spec.name for spec in description.outputs)

    def __call__(self, **inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Run the model on inputs padded to its fixed sizes, and cut the outputs back.

        Args:
            inputs: arrays, one for each of `input_names`, with the file's dtypes.

        Returns:
            Output arrays by name.

        Raises:
            ValueError: an input is missing, unknown, of a wrong shape, or larger than the fixed size.
        """
        description, fixed = self.description, self.description.fixed_sizes
        sizes = input_sizes(inputs, description.inputs)
        padded = pad_to_fixed(inputs, description.inputs, fixed, description.pad_values)
        outputs = dict(zip(self.output_names, self.session.run(self.output_names, padded), strict=True))
        return slice_outputs(outputs, description.outputs, fixed, sizes)


def load_onnx(path: Path | str, **settings: Any) -> OnnxModel:
    """Load an ONNX file with fixed sizes. Needs onnxruntime.

    Args:
        path: path of `model.onnx`.
        settings: further arguments of `onnxruntime.InferenceSession`, such as `providers`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has no fixed sizes.
    """
    from onnxruntime import InferenceSession

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    session = InferenceSession(str(path), **settings)
    written = session.get_modelmeta().custom_metadata_map.get(DESCRIPTION_FILE)
    if written is None:
        raise ValueError(f"{path}: has no fixed sizes, so nothing is to be padded; use onnxruntime.InferenceSession")
    return OnnxModel(session, Description.from_dict(json.loads(written)))
