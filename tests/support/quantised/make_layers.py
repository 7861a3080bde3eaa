"""Quantise one small layer with the library of each format, and write what it stores and what it dequantises to.

    pip install bitsandbytes==0.50.2 compressed-tensors==0.20.0
    python tests/support/quantised/make_layers.py

Writes `layers/*.safetensors` beside this file: the stored tensors of `layer.*`, and `expected`, the weight that the library
itself gives; the metadata holds `quantization_config`. The tests read these files and need none of the libraries.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

FOLDER = Path(__file__).parent / "layers"


def weight(rows: int = 24, columns: int = 64) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(3)) * 0.2


def write(name: str, tensors: dict[str, torch.Tensor], expected: torch.Tensor, quantization: dict[str, Any]) -> None:
    stored = {key: value.contiguous() for key, value in tensors.items()} | {"expected": expected.float().contiguous()}
    FOLDER.mkdir(exist_ok=True)
    save_file(stored, FOLDER / f"{name}.safetensors", {"quantization_config": json.dumps(quantization)})


def four_bits(kind: str, nested: bool) -> None:
    from bitsandbytes import functional

    packed, state = functional.quantize_4bit(weight(), quant_type=kind, compress_statistics=nested, blocksize=64)
    tensors = {"layer.weight": packed}
    tensors |= {f"layer.weight.{key}": value for key, value in state.as_dict(packed=True).items()}
    quantization = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": kind}
    name = f"bitsandbytes_{kind}{'_nested' if nested else ''}"
    write(name, tensors, functional.dequantize_4bit(packed, state), quantization)


def eight_bits() -> None:
    from bitsandbytes import functional

    codes, largest, _ = functional.int8_vectorwise_quant(weight().half())
    tensors = {"layer.weight": codes, "layer.SCB": largest, "layer.weight_format": torch.tensor(0, dtype=torch.uint8)}
    expected = functional.int8_vectorwise_dequant(codes, largest)
    write("bitsandbytes_int8", tensors, expected, {"quant_method": "bitsandbytes", "load_in_8bit": True})


def compressed(name: str, format_name: str, **arguments: Any) -> None:
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.utils import calculate_qparams

    args = QuantizationArgs(**arguments)
    given = weight()
    if args.strategy == "group":
        parts = given.reshape(len(given), -1, args.group_size)
        low, high = parts.amin(-1), parts.amax(-1)
    elif args.strategy == "channel":
        low, high = given.amin(1, keepdim=True), given.amax(1, keepdim=True)
    else:
        low, high = given.amin().reshape(1), given.amax().reshape(1)
    scale, zero = calculate_qparams(low, high, args)
    state = {"weight": given, "weight_scale": scale}
    if not args.symmetric:
        state["weight_zero_point"] = zero
    scheme = QuantizationScheme(targets=["Linear"], weights=args, format=format_name)
    compressor = BaseCompressor.get_value_from_registry(format_name)
    stored = compressor.compress(dict(state), scheme)
    expected = compressor.decompress(dict(stored), scheme)["weight"]
    weights = json.loads(args.model_dump_json())
    quantization = {
        "quant_method": "compressed-tensors",
        "format": format_name,
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }
    write(f"compressed_{name}", {f"layer.{key}": value for key, value in stored.items()}, expected, quantization)


def main() -> None:
    four_bits("nf4", nested=False)
    four_bits("nf4", nested=True)
    four_bits("fp4", nested=True)
    eight_bits()
    compressed("int8_channel", "int-quantized", num_bits=8, type="int", strategy="channel", symmetric=True)
    compressed("fp8_tensor", "float-quantized", num_bits=8, type="float", strategy="tensor", symmetric=True)
    groups = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}
    compressed("packed_4", "pack-quantized", **groups, symmetric=True)
    compressed("packed_4_asymmetric", "pack-quantized", **groups, symmetric=False)
    compressed("packed_8", "pack-quantized", **{**groups, "num_bits": 8}, symmetric=True)


if __name__ == "__main__":
    main()
