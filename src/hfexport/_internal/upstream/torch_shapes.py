"""Private parts of torch by which equal sizes of a model's inputs share one symbol while `torch.export` captures it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from hfexport._internal.upstream.checked import Part, check

__all__ = ["PARTS", "shared_symbols"]

PARTS: Final = (
    Part(
        "torch.fx.experimental.symbolic_shapes",
        "ShapeEnv.create_symbol",
        "a symbol for each axis instead of each dimension; results of operators are then cached across layers",
        (
            "self",
            "val",
            "source",
            "dynamic_dim",
            "constraint_dim",
            "positive",
            "do_not_specialize_zero_one",
            "symbolic_context",
        ),
    ),
    Part("torch.fx.experimental.symbolic_shapes", "DimDynamic.DUCK", "a dimension that takes an existing symbol"),
    Part(
        "torch._dynamo.source",
        "GetItemSource",
        "the input that a symbol is made for",
        ("base", "index", "index_is_slice"),
    ),
    Part("torch._dynamo.source", "TensorPropertySource", "the dimension that it is made for", ("base", "prop", "idx")),
    Part("torch._dynamo.source", "TensorProperty.SIZE", "whether it is a size, not a stride"),
)

check("torch", *PARTS)

# sympy publishes no types. torch's symbols are sympy's, and it is imported with torch.
import sympy  # type: ignore[import-untyped]  # noqa: E402
from torch._dynamo.source import GetItemSource, TensorProperty, TensorPropertySource  # noqa: E402
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv  # noqa: E402


@contextmanager
def shared_symbols(axes: Mapping[tuple[int, int], str]) -> Iterator[None]:
    """Give dimensions of the same axis one symbol in captures that begin inside this context.

    `torch.export` makes a symbol for each dynamic dimension, and finds out while it captures which are equal. A decoder
    has two for each layer of its cache, so that no result of an operator could be taken from another layer.

    Args:
        axes: names of axes by the number of the input, a positional tensor, and its dimension.
    """
    known: dict[str, sympy.Symbol] = {}
    environment: Any = ShapeEnv
    create = environment.create_symbol

    def create_symbol(
        self: Any, val: int, source: Any, dynamic_dim: Any = DimDynamic.DUCK, constraint_dim: Any = None, **options: Any
    ) -> Any:
        axis = axes.get(_dimension(source)) if dynamic_dim is DimDynamic.DYNAMIC else None
        if axis in known and self.backed_var_to_val[known[axis]] == val:
            by_size, self.val_to_var = self.val_to_var, {val: known[axis]}
            try:
                return create(self, val, source, DimDynamic.DUCK, None, **options)
            finally:
                self.val_to_var = by_size
        symbol = create(self, val, source, dynamic_dim, constraint_dim, **options)
        if axis is not None and isinstance(symbol, sympy.Symbol):
            known[axis] = symbol
        return symbol

    environment.create_symbol = create_symbol
    try:
        yield
    finally:
        environment.create_symbol = create


def _dimension(source: Any) -> tuple[int, int]:
    """Return the number of the input and the dimension that a symbol is made for; `(-1, -1)` for anything else."""
    if not isinstance(source, TensorPropertySource) or not isinstance(source.base, GetItemSource):
        return -1, -1
    return (source.base.index, source.idx or 0) if source.prop is TensorProperty.SIZE else (-1, -1)
