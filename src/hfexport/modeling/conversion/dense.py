"""Convert dense layers of sentence-transformers from pytorch_model.bin to safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from hfexport.export_config import SentenceModules
from hfexport.modeling.conversion.child import run_child
from hfexport.modeling.conversion.messages import ConversionJob

__all__ = ["convert_dense"]


def convert_dense(modules: SentenceModules, folder: Path, env: Mapping[str, str]) -> SentenceModules:
    """Write the weights of dense layers as safetensors if they have another format.

    Args:
        modules: modules of the user's folder.
        folder: folder for the files; created if needed.
        env: environment; the child gets an allow-list of it.

    Returns:
        The modules with all weights in safetensors files.

    Raises:
        CheckpointError: a file is damaged, or contains objects other than tensors.
    """
    layers = []
    for number, layer in enumerate(modules.dense):
        file = Path(layer.file)
        if file.suffix != ".safetensors":
            own = folder / str(number)
            own.mkdir(parents=True)
            target = own.resolve() / "layer"
            job = ConversionJob(
                source=str(file.parent),
                format="pytorch",
                files=(str(file),),
                sharded=False,
                architectures=(),
                folder=str(target),
                dequantise=False,
                unwrap=False,
            )
            size_bytes = file.stat().st_size
            name = f"conversion of {file.parent.name}/{file.name}"
            run_child("hfexport.modeling.conversion.worker", job, name=name, folder=own, env=env, size_bytes=size_bytes)
            file = target / "model.safetensors"
        layers.append(replace(layer, file=str(file)))
    return replace(modules, dense=tuple(layers))
