"""Private parts of torch for capturing models and for runs without data."""

from __future__ import annotations

from typing import Any, Final

from hfexport._internal.upstream.checked import Part, check

__all__ = ["PARTS", "FakeTensorMode", "TorchDispatchMode", "graphs_of", "list_of_ints", "tree_leaves"]

PARTS: Final = (
    Part(
        "torch._subclasses.fake_tensor",
        "FakeTensorMode",
        "models without data; torch.export uses it and documents it, but keeps it in a private module",
        ("allow_fallback_kernels", "allow_non_fake_inputs", "shape_env", "static_shapes", "export"),
    ),
    Part("torch.utils._python_dispatch", "TorchDispatchMode", "to see which tensors a model's operators read"),
    Part("torch.utils._pytree", "tree_leaves", "to find the tensors among an operator's arguments"),
    Part("torch", "_C.ListType.ofInts", "the type of a list of sizes in a TorchScript graph"),
    Part("torch", "_C.ScriptModule._get_method", "the graph of every method of a TorchScript module"),
    Part("torch", "_C.ScriptModule._method_names", "the graph of every method of a TorchScript module"),
)

check("torch", *PARTS)

import torch  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402


def graphs_of(module: torch.nn.Module) -> list[Any]:
    """Return the TorchScript graphs of a traced module: one for each call during tracing."""
    script: Any = module._c
    return [script._get_method(name).graph for name in script._method_names()]


def list_of_ints() -> Any:
    """Return TorchScript's type of a list of integers."""
    return torch._C.ListType.ofInts()
