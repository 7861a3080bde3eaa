"""Weights from a checkpoint's files: the bytes that torch would write, and no weight without a fitting tensor."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file

from hfexport.backends.origins import CheckpointWeight, Origin, Origins, StoredWeight, open_weights
from hfexport.backends.templates import checkpoint_key
from hfexport.checkpoint.safetensors_header import TensorInfo, stored_tensors
from hfexport.checkpoint.stored import StoredTensor

TYPES = {
    torch.float32: onnx.TensorProto.FLOAT,
    torch.float16: onnx.TensorProto.FLOAT16,
    torch.float64: onnx.TensorProto.DOUBLE,
}


def _stored(tmp_path: Path, tensor: torch.Tensor) -> StoredTensor:
    save_file({"weight": tensor.contiguous()}, tmp_path / "model.safetensors")
    (stored,) = stored_tensors(tmp_path / "model.safetensors")
    return stored


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("wanted", list(TYPES))
@pytest.mark.parametrize("transposed", [False, True])
def test_data_is_what_torch_converts_it_to(
    tmp_path: Path, stored: torch.dtype, wanted: torch.dtype, transposed: bool
) -> None:
    values = torch.randn(300, 520, generator=torch.Generator().manual_seed(1)) * 1e4
    values[0, :4] = torch.tensor([1e6, -1e-8, 65504.0, float("inf")])
    tensor = values.to(stored)
    shape = (520, 300) if transposed else (300, 520)
    weight = CheckpointWeight("weight", TYPES[wanted], shape, _stored(tmp_path, tensor), transposed)
    right = (tensor.to(wanted).t() if transposed else tensor.to(wanted)).contiguous()
    assert bytes(weight.data()) == right.reshape(-1).view(torch.uint8).numpy().tobytes()
    assert weight.size_bytes == right.nbytes


def _open(tensor: StoredTensor, origin: Origin, **changes: Any) -> bytes:
    weight = StoredWeight(**{"name": "w", "data_type": 1, "shape": (2, 3), "branch": 0, "tensor": "w", **changes})
    (one,) = open_weights((weight,), Origins("model", "default", "key", (origin,)), {tensor.name: tensor})
    return bytes(one.data())


def test_a_weight_without_a_fitting_tensor_is_refused(tmp_path: Path) -> None:
    numbers = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensor = _stored(tmp_path, torch.from_numpy(numbers))
    assert _open(tensor, Origin("weight")) == numbers.tobytes()
    assert _open(tensor, Origin("", numbers.tobytes())) == numbers.tobytes()
    with pytest.raises(ValueError, match="has no tensor for w"):
        _open(tensor, Origin("other"))
    with pytest.raises(ValueError, match="has no tensor for w"):
        _open(tensor, Origin("weight"), shape=(2, 4))
    with pytest.raises(ValueError, match="has no tensor for w"):
        _open(tensor, Origin("weight"), data_type=int(onnx.TensorProto.INT64))
    with pytest.raises(ValueError, match="has no tensor for w"):
        _open(tensor, Origin("weight"), shape=(6,), transposed=True) if len(tensor.shape) != 2 else _open(
            tensor, Origin("", b"short")
        )
    with pytest.raises(ValueError, match="describes no weight"):
        _open(tensor, Origin("weight"), data_type=99)
    with pytest.raises(ValueError, match="other weights"):
        open_weights((), Origins("model", "default", "key", (Origin("weight"),)), {})


def _checkpoint(**changes: Any) -> Any:
    values = {
        "config": {"model_type": "bert", "hidden_size": 8, "layer_norm_eps": 1e-12, "inner": {"a": 1}},
        "tensors": {"one": TensorInfo("F32", (2, 3), 24, 0)},
    }
    return SimpleNamespace(**{**values, **changes})


def test_the_key_of_a_checkpoint_depends_on_config_tensors_and_inputs() -> None:
    config = _checkpoint().config
    keys = [
        checkpoint_key(_checkpoint(), {"task": "auto"}),
        checkpoint_key(_checkpoint(), {"task": "default"}),
        *(checkpoint_key(_checkpoint(config={**config, name: "changed"}), {"task": "auto"}) for name in config),
        checkpoint_key(_checkpoint(config={**config, "inner": {"a": 2}}), {"task": "auto"}),
        checkpoint_key(_checkpoint(config={**config, "new": None}), {"task": "auto"}),
        checkpoint_key(_checkpoint(tensors={"one": TensorInfo("F16", (2, 3), 12, 0)}), {"task": "auto"}),
        checkpoint_key(_checkpoint(tensors={"one": TensorInfo("F32", (3, 2), 24, 0)}), {"task": "auto"}),
        checkpoint_key(_checkpoint(tensors={"two": TensorInfo("F32", (2, 3), 24, 0)}), {"task": "auto"}),
    ]
    assert len(set(keys)) == len(keys)
    same = _checkpoint(config={**config, "_name_or_path": "elsewhere", "transformers_version": "1"})
    assert checkpoint_key(same, {"task": "auto"}) == keys[0]
