"""Private parts of other libraries: one place has them, each is what hfexport was made for, a change is told as such."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest
import torch

import hfexport
from hfexport._internal.upstream import (
    checked,
    exporters,
    hub_client,
    models,
    script,
    torch_core,
    torch_onnx,
    torch_onnx_ops,
    torch_shapes,
)
from hfexport._internal.upstream.checked import MADE_FOR, Part, check, problem
from hfexport.errors import UpstreamError

PACKAGE = Path(hfexport.__file__).parent
MODULES = (exporters, hub_client, models, script, torch_core, torch_onnx, torch_onnx_ops, torch_shapes)
PARTS = [part for module in MODULES for part in module.PARTS] + [
    part for parts in models.MODEL_PARTS.values() for part in parts
]


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_every_private_part_is_as_it_was(part: Part) -> None:
    assert problem(part) is None
    assert part.reason


@pytest.mark.parametrize("library", MADE_FOR)
def test_versions_are_those_of_the_locks(library: str) -> None:
    locks = [Path(__file__).parents[3] / "requirements" / name for name in ("runtime.txt", "torch.txt")]
    name = library.replace("_", "-")
    (pin,) = [
        line.split("==")[1].split()[0]
        for lock in locks
        for line in lock.read_text().splitlines()
        if line.startswith(f"{name}==")
    ]
    assert pin.startswith(f"{MADE_FOR[library]}.")


def test_another_version_is_the_librarys_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checked, "version", lambda name: "2.14.0+cpu" if name == "torch" else "0")
    with pytest.raises(UpstreamError, match=r"made for torch 2\.13, found 2\.14\.0\+cpu\n.*[Rr]einstall") as caught:
        check("torch")
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (Part("torch.onnx._gone", "anything", "test"), "there is no module torch.onnx._gone"),
        (Part("torch.onnx", "_gone.further", "test"), "torch.onnx has no _gone.further"),
        (Part("torch.onnx", "export", "test", ("model",)), r"torch.onnx.export takes \(model, args, "),
    ],
)
def test_a_part_that_moved_is_named(part: Part, said: str) -> None:
    with pytest.raises(UpstreamError, match=said):
        check("torch", part)


def test_a_renamed_function_is_not_the_models_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.longt5 import modeling_longt5

    from hfexport.backends.patches import model_patches

    monkeypatch.delattr(modeling_longt5, "_split_into_blocks")
    with pytest.raises(UpstreamError, match="has no _split_into_blocks"), model_patches("longt5"):
        pass


def test_a_renamed_function_of_torch_is_told_when_it_is_first_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch_onnx.exporter_core, "_prepare_exported_program_for_export")
    with pytest.raises(UpstreamError, match=r"made for torch 2\.13, .* has no _prepare_exported_program_for_export"):
        importlib.reload(torch_onnx)


SOURCES = sorted(
    path
    for path in PACKAGE.rglob("*.py")
    # The worker for Neuron runs in an interpreter without hfexport, beside another torch and transformers.
    if not path.is_relative_to(PACKAGE / "_internal/upstream")
    and not path.is_relative_to(PACKAGE / "backends/neuron/worker")
    and path != PACKAGE / "runtime/neuron.py"
)


def test_no_other_module_reaches_for_private_parts() -> None:
    found = {f"{path.relative_to(PACKAGE)}: {name}" for path in SOURCES for name in _private_names(path.read_text())}
    assert not found, "reach for them in _internal/upstream, with a reason"


def test_the_search_for_private_parts_finds_them() -> None:
    source = (
        "import torch._C\nfrom torch._subclasses import x\nfrom torch import _C\ntorch._C.y\nself._own\nos._exit(0)\n"
    )
    assert len(_private_names(source)) == 4


def _private_names(source: str) -> list[str]:
    """Private modules, names and attributes of other libraries that a module reaches for."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module is not None and not node.module.startswith("hfexport"):
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
            found += [name for name in names if _is_private(name)][:1]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if any(map(_is_private, alias.name.split(".")))]
        elif (
            isinstance(node, ast.Attribute)
            and _is_private(node.attr)
            and _root(node) in LIBRARIES
            and not ast.unparse(node).startswith("torch.ops.")
        ):
            found.append(node.attr)
    return found


LIBRARIES = ("torch", "transformers", "onnx", "onnxscript", "huggingface_hub", "config", "model", "program", "module")
"""Names under which modules and objects of other libraries are known here."""


def _root(node: ast.Attribute) -> str:
    value: ast.expr = node.value
    while isinstance(value, ast.Attribute):
        value = value.value
    return value.id if isinstance(value, ast.Name) else ""


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


class _Apart(torch.nn.Module):
    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(tensor + 1 for tensor in tensors)


@pytest.mark.parametrize(
    ("axes", "sizes", "shared"),
    [
        ({(0, 0): "batch", (1, 0): "batch"}, (3, 3), True),
        ({(0, 0): "batch", (1, 0): "batch"}, (3, 4), False),
        ({(0, 0): "batch", (1, 0): "sequence"}, (3, 3), False),
        ({}, (3, 3), False),
    ],
    ids=["one axis", "other sizes", "two axes", "no axes"],
)
def test_dimensions_of_one_axis_share_a_symbol(
    axes: dict[tuple[int, int], str], sizes: tuple[int, int], shared: bool
) -> None:
    dynamic = {0: torch.export.Dim.DYNAMIC}
    tensors = tuple(torch.ones(size, 2) for size in sizes)
    with torch_shapes.shared_symbols(axes):
        program = torch.export.export(_Apart(), tensors, dynamic_shapes=((dynamic, dynamic),), strict=False)
    first, second = [node.meta["val"].shape[0] for node in program.graph.nodes if node.op == "placeholder"]
    assert (str(first) == str(second)) is shared
