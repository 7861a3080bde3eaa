"""Private parts of torch that load a TorchScript archive with storages that are mapped from the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from hfexport._internal.upstream.checked import Part, check

if TYPE_CHECKING:
    import io
    from pathlib import Path

    import torch

__all__ = ["PARTS", "import_module", "record_offsets"]

_REASON: Final = "torch.jit.load copies every tensor; torch.package's importer accepts existing storages"

PARTS: Final = (
    Part("torch", "_C.PyTorchFileReader", "offsets of the records of an archive"),
    Part("torch", "_C.DeserializationStorageContext.add_storage", _REASON),
    Part("torch", "_C._import_ir_module_from_package", _REASON),
    Part("torch", "_C.CompilationUnit", _REASON),
    Part("torch.jit._recursive", "wrap_cpp_module", _REASON, ("cpp_module",)),
)


def record_offsets(path: Path) -> dict[str, int]:
    """Return the offset of each record of an archive, by its name below the archive's root folder.

    Raises:
        RuntimeError: the file is not an archive of torch.
    """
    check("torch", *PARTS)
    import torch

    reader: Any = torch._C.PyTorchFileReader(str(path))
    return {name: reader.get_record_offset(name) for name in reader.get_all_records()}


def import_module(archive: io.BytesIO, storages: Mapping[str, torch.Tensor]) -> Any:
    """Import the TorchScript module `0` of an archive laid out as torch.package does.

    Args:
        archive: pickles in `.data/ts_code/0/`, code in `.data/ts_code/code/`.
        storages: tensors whose storages are used, by the keys in the pickles.

    Raises:
        RuntimeError: the code or the pickles cannot be read.
    """
    check("torch", *PARTS)
    import torch
    from torch.jit import _recursive

    core: Any = torch._C
    recursive: Any = _recursive
    context = core.DeserializationStorageContext()
    for key, tensor in storages.items():
        context.add_storage(key, tensor)
    reader = core.PyTorchFileReader(archive)
    module = core._import_ir_module_from_package(core.CompilationUnit(), reader, context, None, "0")
    return recursive.wrap_cpp_module(module)
