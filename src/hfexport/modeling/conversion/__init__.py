"""Convert TensorFlow, pickle and quantised weights to safetensors, the only format that the rest of the code reads.

A child process streams the tensors from the source's files into one file in the run's staging folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from hfexport._internal.messages import read
from hfexport.checkpoint import Checkpoint, Contents, Conversion
from hfexport.checkpoint.local import commonest_dtype
from hfexport.checkpoint.quantized import quantization_method, without_quantization
from hfexport.checkpoint.safetensors_header import read_header
from hfexport.modeling.conversion.child import run_child
from hfexport.modeling.conversion.messages import ConversionAnswer, ConversionJob

__all__ = ["conversion_job", "convert"]


def convert(contents: Contents, folder: Path, env: Mapping[str, str]) -> Checkpoint:
    """Write a folder's weights as safetensors.

    Args:
        contents: folder whose weights are not PyTorch safetensors, are quantised, or have names with a wrapper's
            prefixes.
        folder: an empty folder of the run; the checkpoint is written there.
        env: environment; the child gets an allow-list of it.

    Raises:
        CheckpointError: the weights are damaged, contain objects other than tensors, or do not fit the model.
        UnsupportedError: no PyTorch class fits the TensorFlow weights, or quantised weights cannot be dequantised.
    """
    weights, method = contents.weights, _quantization(contents)
    target = folder.resolve() / "checkpoint"
    job = conversion_job(contents, target)
    name = f"conversion of {weights.files[0].name}"
    size_bytes = sum(path.stat().st_size for path in weights.files)
    module = "hfexport.modeling.conversion.worker"
    values = run_child(module, job, name=name, folder=folder, env=env, size_bytes=size_bytes)
    answer = read(values, ConversionAnswer)
    path = target / "model.safetensors"
    tensors, _ = read_header(path)
    conversion = Conversion(
        weights.format,
        answer.left_out,
        answer.removed_prefixes,
        answer.wall_s,
        answer.peak_rss_bytes,
        method,
    )
    if method:
        plain = without_quantization(contents.config)
        along = {**contents.along, "config.json": target / "config.json"}
        contents = replace(contents, config=plain, along=along)
    return Checkpoint(contents, target, (path,), tensors, commonest_dtype(tensors), conversion)


def conversion_job(contents: Contents, target: Path) -> ConversionJob:
    """Return the job that writes the weights of `contents` to the folder `target`."""
    weights = contents.weights
    return ConversionJob(
        source=str(contents.folder.resolve()),
        format=weights.format,
        files=tuple(str(path.absolute()) for path in weights.files),
        sharded=weights.index is not None,
        architectures=tuple(contents.architectures),
        folder=str(target),
        dequantise=bool(_quantization(contents)),
        unwrap=not weights.format.startswith("tensorflow"),
    )


def _quantization(contents: Contents) -> str:
    """Return the method by which the weights are quantised; empty for none."""
    return "" if contents.weights.format.startswith("tensorflow") else quantization_method(contents.config)
