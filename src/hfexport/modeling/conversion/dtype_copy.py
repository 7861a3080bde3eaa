"""Copy a checkpoint's weights in the dtype of the export, so that they can be mapped instead of converted in memory.

`from_pretrained` maps a weight from its safetensors file only if the file has the requested dtype. Any other weight is
converted in memory, and each process that loads the model holds its own copy.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hfexport._internal.room import writing
from hfexport.checkpoint.contained import files_beside
from hfexport.checkpoint.local import DTYPES
from hfexport.checkpoint.safetensors_header import stored_tensors
from hfexport.modeling.conversion.safetensors_writer import write_safetensors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hfexport.checkpoint import Checkpoint
    from hfexport.export_config import ExportConfig

__all__ = ["DtypePlan", "plan_dtypes", "write_in_dtype"]

_STORED: Final = {ours: stored for stored, ours in DTYPES.items()}
"""Names of floating dtypes in safetensors, by hfexport's names."""

_WEIGHTS: Final = "model.safetensors"
_INDEX_SUFFIX: Final = ".index.json"


@dataclass(frozen=True)
class DtypePlan:
    """Weights of a checkpoint that must be converted for an export.

    Attributes:
        dtypes: target dtype by weight, by safetensors' name; weights that stay unchanged are left out.
        size_bytes: size of a copy of the checkpoint with these dtypes; 0 if nothing has to be converted.
    """

    dtypes: Mapping[str, str]
    size_bytes: int


def plan_dtypes(checkpoint: Checkpoint, config: ExportConfig, dtype: str) -> DtypePlan:
    """Choose for each weight the dtype that `from_pretrained` would convert it to.

    For fp16, a weight that transformers renames or merges in an unknown way stays unchanged, since the model may keep
    it in fp32. Widening loses nothing.

    Args:
        checkpoint: checkpoint of safetensors.
        config: export config of the model.
        dtype: `fp32`, `fp16` or `fp64`.
    """
    floating = {name: info for name, info in checkpoint.tensors.items() if info.dtype in DTYPES}
    if all(info.dtype == _STORED[dtype] for info in floating.values()):
        return DtypePlan({}, 0)
    asked = _dtypes_of_model(config, dtype) if dtype != "fp64" else None
    dtypes = {}
    for name, info in floating.items():
        stored = _STORED[dtype] if asked is None else asked(name)
        if stored is None and dtype == "fp32":
            stored = _STORED[dtype]
        if stored is not None and stored != info.dtype:
            dtypes[name] = stored
    if not dtypes:
        return DtypePlan({}, 0)
    items = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
    size_bytes = sum(
        info.size_bytes // items[info.dtype] * items[dtypes[name]] if name in dtypes else info.size_bytes
        for name, info in checkpoint.tensors.items()
    )
    return DtypePlan(dtypes, size_bytes)


def _dtypes_of_model(config: ExportConfig, dtype: str) -> Callable[[str], str | None]:
    """Return a function from a weight's name to the dtype in which the model holds it; `None` if that is unknown."""
    from hfexport._internal.upstream.models import kept_dtypes, loader_renaming
    from hfexport.modeling.load import model_without_data, torch_dtype

    model: Any = model_without_data(config, dtype)
    wanted = model.state_dict()
    rename = loader_renaming(model)
    kept = kept_dtypes(model, torch_dtype(dtype))
    names = {f"torch.float{8 * size}": stored for stored, size in (("F64", 8), ("F32", 4), ("F16", 2))}

    def asked(name: str) -> str | None:
        renamed = name if name in wanted else rename(name, wanted)
        if renamed not in wanted:
            return None
        return names.get(str(kept(renamed) or wanted[renamed].dtype))

    return asked


def write_in_dtype(checkpoint: Checkpoint, plan: DtypePlan, folder: Path, advance: Callable[[int], None]) -> None:
    """Write the copy: one file of weights, and links to the other files of the checkpoint that transformers reads.

    Tensors are mapped from the checkpoint's files and converted one at a time.

    Args:
        checkpoint: checkpoint whose weights are converted.
        plan: weights to convert.
        folder: folder of the copy; created.
        advance: called with the size of each written weight in bytes.

    Raises:
        ExportError: the disk is too full for the copy.
    """
    stored = [tensor for path in checkpoint.weight_files for tensor in stored_tensors(path)]
    converted = [
        replace(tensor, dtype=plan.dtypes[tensor.name], read=partial(_read, tensor, plan.dtypes[tensor.name]))
        if tensor.name in plan.dtypes
        else tensor
        for tensor in stored
    ]
    folder.mkdir(parents=True)
    (folder / "config.json").symlink_to((checkpoint.folder / "config.json").resolve())
    for path in files_beside(checkpoint.contents.folder):
        if path.name != "config.json" and not path.name.endswith(_INDEX_SUFFIX):
            (folder / path.name).symlink_to(path.resolve())
    name = str(checkpoint.config.get("transformers_weights") or _WEIGHTS)
    if name.endswith(_INDEX_SUFFIX):
        index = {"metadata": {}, "weight_map": {tensor.name: _WEIGHTS for tensor in converted}}
        (folder / name).write_text(json.dumps(index), encoding="utf-8")
        name = _WEIGHTS
    with writing(folder, plan.size_bytes):
        write_safetensors(folder / name, converted, advance=advance)


def _read(tensor: Any, dtype: str) -> NDArray[Any]:
    """Return the data of a stored tensor in another floating dtype, rounded as torch rounds."""
    import numpy as np
    import torch

    torch_dtypes = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16}
    array = tensor.read()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the mapped data is read-only, and is not written
        data = torch.from_numpy(np.ascontiguousarray(array).reshape(-1))
    source = data.view(torch.bfloat16) if tensor.dtype == "BF16" else data
    return source.to(torch_dtypes[dtype]).reshape(array.shape).numpy()
