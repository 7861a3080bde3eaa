"""Dequantised weights are those that each format's own library gives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hfexport.checkpoint.quantized import quantization_method, refuse_plain_weights, without_quantization
from hfexport.checkpoint.safetensors_header import TensorInfo, stored_tensors
from hfexport.errors import CheckpointError, UnsupportedError
from hfexport.modeling.conversion.quantised import dequantise
from quantised.packing import awq, gptq, pack_words

LAYERS = sorted((Path(__file__).parents[2] / "support/quantised/layers").glob("*.safetensors"))


def read(folder: Path, tensors: dict[str, torch.Tensor], config: dict) -> dict[str, np.ndarray]:
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "x.safetensors")
    return {
        tensor.name: np.array(tensor.read()) for tensor in dequantise(config, stored_tensors(folder / "x.safetensors"))
    }


@pytest.mark.parametrize("path", LAYERS, ids=lambda path: path.stem)
def test_as_its_library_does(path: Path, tmp_path: Path) -> None:
    with safe_open(path, "pt") as file:
        quantization = json.loads(file.metadata()["quantization_config"])
    tensors = load_file(path)
    expected = tensors.pop("expected").numpy()
    found = read(tmp_path, tensors, {"quantization_config": quantization})
    assert list(found) == ["layer.weight"]
    # Libraries compute in half precision where the scales are stored in it.
    np.testing.assert_allclose(found["layer.weight"], expected, atol=1e-3 if "int8" in path.stem else 1e-6)


def test_all_layers_are_there() -> None:
    assert len(LAYERS) == 9


@pytest.mark.parametrize("shape", [(40, 48), (16, 20), (33, 17)])
def test_fp8_as_transformers_does(shape: tuple[int, int], tmp_path: Path) -> None:
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    rows, columns = shape
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(torch.float8_e4m3fn)
    scale = torch.rand(-(-rows // 16), -(-columns // 16), generator=torch.Generator().manual_seed(2)) + 0.5
    quantization = {"quant_method": "fp8", "weight_block_size": [16, 16]}
    found = read(tmp_path, {"a.weight": weight, "a.weight_scale_inv": scale}, {"quantization_config": quantization})
    wide = scale.repeat_interleave(16, 0)[:rows].repeat_interleave(16, 1)[:, :columns]
    np.testing.assert_array_equal(found["a.weight"], (weight.float() * wide).numpy())
    if rows % 16 == 0 and columns % 16 == 0:
        theirs = Fp8Dequantize(None)._dequantize_one(weight, scale, torch.float32)
        np.testing.assert_array_equal(found["a.weight"], theirs.numpy())


def test_mxfp4_as_transformers_does(tmp_path: Path) -> None:
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    generator = torch.Generator().manual_seed(5)
    blocks = torch.randint(0, 256, (3, 6, 2, 16), dtype=torch.uint8, generator=generator)
    scales = torch.randint(120, 131, (3, 6, 2), dtype=torch.uint8, generator=generator)
    given = {"experts.up_blocks": blocks, "experts.up_scales": scales, "experts.up_bias": torch.ones(3)}
    found = read(tmp_path, given, {"quantization_config": {"quant_method": "mxfp4"}})
    theirs = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    np.testing.assert_array_equal(found["experts.up"], theirs.numpy())
    assert sorted(found) == ["experts.up", "experts.up_bias"]


@pytest.mark.parametrize(("method", "pack"), [("gptq", gptq), ("awq", awq)])
def test_packed_rows(method: str, pack: object, tmp_path: Path) -> None:
    weight = torch.randn(24, 48, generator=torch.Generator().manual_seed(1)) * 0.1
    packed = {f"a.{name}": value for name, value in pack(weight).items()}  # type: ignore[operator]
    found = read(tmp_path, packed, {"quantization_config": {"quant_method": method, "bits": 4}})
    steps = packed["a.scales"].float().T.repeat_interleave(16, 1).numpy()
    assert list(found) == ["a.weight"]
    assert (np.abs(found["a.weight"] - weight.numpy()) <= steps * 1.01).all()


@pytest.mark.parametrize(("method", "pack"), [("gptq", gptq), ("awq", awq)])
@pytest.mark.parametrize(("model_type", "transposed"), [("gpt2", True), ("gpt_bigcode", False)])
def test_projections_that_are_stored_the_other_way_round(
    method: str, pack: object, model_type: str, transposed: bool, tmp_path: Path
) -> None:
    weight = torch.randn(32, 48, generator=torch.Generator().manual_seed(1))
    layer = {f"h.0.attn.c_attn.{part}": packed for part, packed in pack(weight).items()}  # type: ignore[operator]
    config = {"model_type": model_type, "quantization_config": {"quant_method": method, "bits": 4}}
    found = read(tmp_path, layer, config)["h.0.attn.c_attn.weight"]
    expected = weight.T if transposed else weight  # `Conv1D` of GPT-2 has weights (in, out)
    np.testing.assert_allclose(found, expected, atol=0.3)


def test_gptq_with_inputs_in_another_order(tmp_path: Path) -> None:
    weight = torch.randn(8, 32, generator=torch.Generator().manual_seed(1)) * 0.1
    order = torch.randperm(32, generator=torch.Generator().manual_seed(2))
    packed = gptq(weight[:, order])
    codes_of = {name: value for name, value in packed.items() if name != "qweight"}
    plain = read(tmp_path, {f"a.{k}": v for k, v in packed.items()}, {"quantization_config": {"quant_method": "gptq"}})
    assert np.abs(plain["a.weight"] - weight[:, order].numpy()).max() < 0.05
    moved = {**packed, "g_idx": codes_of["g_idx"].flip(0)}
    other = read(tmp_path, {f"a.{k}": v for k, v in moved.items()}, {"quantization_config": {"quant_method": "gptq"}})
    assert not np.allclose(other["a.weight"], plain["a.weight"])


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_other_numbers_of_bits(bits: int, tmp_path: Path) -> None:
    codes = torch.randint(0, 2**bits, (32, 32), generator=torch.Generator().manual_seed(bits))
    single = ((codes[..., None] >> torch.arange(bits)) & 1).reshape(32, -1)
    words = pack_words(single.reshape(32, -1), 1)
    zeros = torch.zeros(1, 32 * bits // 32, dtype=torch.int32)
    tensors = {"a.qweight": words.T.contiguous(), "a.qzeros": zeros, "a.scales": torch.ones(1, 32)}
    found = read(tmp_path, tensors, {"quantization_config": {"quant_method": "gptq", "bits": bits}})
    np.testing.assert_array_equal(found["a.weight"], codes.numpy() - 1)


def test_the_dtype_is_that_of_the_config(tmp_path: Path) -> None:
    tensors = {"a.weight": torch.ones(2, 2).to(torch.float8_e4m3fn), "a.weight_scale_inv": torch.tensor(1.003)}
    config = {"torch_dtype": "bfloat16", "quantization_config": {"quant_method": "fp8"}}
    (bits,) = read(tmp_path, tensors, config).values()
    assert bits.dtype == np.uint16
    assert (bits == torch.tensor(1.003).bfloat16().view(torch.int16).item()).all()


def test_the_config_of_a_model_within_the_model_may_be_the_one_that_is_quantised(tmp_path: Path) -> None:
    tensors = {"a.weight": torch.ones(2, 2).to(torch.float8_e4m3fn), "a.weight_scale_inv": torch.tensor(1.003)}
    text = {"hidden_size": 2, "dtype": "bfloat16", "quantization_config": {"quant_method": "fp8"}}
    config = {"model_type": "llava", "text_config": text, "vision_config": {"hidden_size": 2}}
    (bits,) = read(tmp_path, tensors, config).values()
    assert bits.dtype == np.uint16
    plain = without_quantization(config)
    assert plain == {**config, "text_config": {"hidden_size": 2, "dtype": "bfloat16"}}
    assert (quantization_method(config), quantization_method(plain)) == ("fp8", "")
    with pytest.raises(CheckpointError, match="plain F32"):
        refuse_plain_weights(tmp_path / "config.json", config, {"a.weight": TensorInfo("F32", (2, 2), 16, 0)})


@pytest.mark.parametrize(
    ("quantization", "said"),
    [
        ({"quant_method": "aqlm"}, "'aqlm'"),
        ({"quant_method": "awq", "version": "gemv"}, "'gemv'"),
        ({"quant_method": "gptq", "bits": 5}, "5 bits"),
        ({"quant_method": "gptq", "checkpoint_format": "marlin"}, "'marlin'"),
        ({"quant_method": "compressed-tensors", "format": "sparse-24"}, "'sparse-24'"),
    ],
)
def test_what_has_no_formula_here(quantization: dict, said: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=said) as refused:
        read(tmp_path, {"a.qweight": torch.zeros(2, 2)}, {"quantization_config": quantization})
    assert "save_pretrained" in str(refused.value.remedy)


def test_missing_and_wrong_scales(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"a\.scales"):
        packed = {f"a.{name}": value for name, value in gptq(torch.ones(8, 16)).items() if name != "scales"}
        read(tmp_path, packed, {"quantization_config": {"quant_method": "gptq"}})
    tensors = {"a.weight": torch.ones(64, 64).to(torch.float8_e4m3fn), "a.weight_scale_inv": torch.ones(7, 3)}
    with pytest.raises(CheckpointError, match="7 scales"):
        read(tmp_path, tensors, {"quantization_config": {"quant_method": "fp8", "weight_block_size": [16, 16]}})
