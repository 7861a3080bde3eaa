"""Dense layers of sentence-transformers whose weights lie in a pytorch_model.bin, as safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from hfexport.export_config import SentenceModules
from hfexport.modeling.conversion.child import run_child

__all__ = ["convert_dense"]


def convert_dense(modules: SentenceModules, folder: Path, env: Mapping[str, str]) -> SentenceModules:
    """Write the weights of dense layers as safetensors, where they are not.

    Args:
        modules: as they were given.
        folder: for the files; it is made if it is needed.
        env: the environment, of which the child sees an allow-list.

    Returns:
        The modules with files of safetensors alone.

    Raises:
        CheckpointError: a file is damaged, or asks for more than weights.
    """
    layers = []
    for number, layer in enumerate(modules.dense):
        file = Path(layer.file)
        if file.suffix != ".safetensors":
            own = folder / str(number)
            own.mkdir(parents=True)
            target = own.resolve() / "layer"
            job = {"source": str(file.parent), "format": "pytorch", "files": [str(file)], "sharded": False}
            job |= {"architectures": [], "folder": str(target), "wrapped": False}
            size_bytes = file.stat().st_size
            name = f"conversion of {file.parent.name}/{file.name}"
            run_child("hfexport.modeling.conversion.worker", job, name=name, folder=own, env=env, size_bytes=size_bytes)
            file = target / "model.safetensors"
        layers.append(replace(layer, file=str(file)))
    return replace(modules, dense=tuple(layers))
