"""Private parts of `transformers.exporters`, whose patches and translations make models exportable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from hfexport._internal.upstream.checked import Part, check

__all__ = [
    "PARTS",
    "apply_fx_node_fixes",
    "apply_onnx_ir_fixes",
    "import_dotted_path",
    "patch_attributes",
    "patches_of",
    "translations",
]

_UTILS, _ONNX = "transformers.exporters.utils", "transformers.exporters.exporter_onnx"

PARTS: Final = (
    Part(_UTILS, "_PATCHES", "`apply_patches` imports every architecture that has one; this imports none"),
    Part(_UTILS, "patch_attributes", "applies patches", ("patches",)),
    Part(_UTILS, "import_dotted_path", "finds the function that a patch replaces", ("path", "missing_ok")),
    Part(_UTILS, "apply_fx_node_fixes", "a step of the exporter", ("backend", "graph_module")),
    Part(_ONNX, "_ONNX_TRANSLATION_TABLE", "translations of operators that torch.onnx lacks"),
    Part(_ONNX, "apply_onnx_ir_fixes", "a step of the exporter", ("onnx_program",)),
)

check("transformers", *PARTS)

from transformers.exporters import exporter_onnx  # noqa: E402
from transformers.exporters import utils as exporter_utils  # noqa: E402
from transformers.exporters.exporter_onnx import apply_onnx_ir_fixes  # noqa: E402
from transformers.exporters.utils import (  # noqa: E402
    apply_fx_node_fixes,
    import_dotted_path,
    patch_attributes,
)


def patches_of(exporter: str) -> Sequence[tuple[str, str, Any]]:
    """Return the patches of an exporter (`onnx`, `dynamo`): dotted path of the owner, attribute, replacement."""
    return exporter_utils._PATCHES.get(exporter, [])


def translations() -> Mapping[Any, Callable[..., Any]]:
    """Return the ONNX translations of `transformers` for operators that `torch.onnx` cannot translate, by operator."""
    return exporter_onnx._ONNX_TRANSLATION_TABLE
